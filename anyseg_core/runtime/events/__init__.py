"""Event streams: codecs, decoders and count images."""
