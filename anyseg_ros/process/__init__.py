"""What a process of this package needs: settings, an end in order, and callbacks that cannot end it."""
