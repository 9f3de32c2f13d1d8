"""Every picture and plot."""
