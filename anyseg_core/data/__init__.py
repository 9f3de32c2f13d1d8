"""Labelled samples of several sensors: data sets, packing, augmentation. No torch here."""
