"""`anyseg demo`: a simulated vehicle loses its sensors one after another, live, and is scored."""
