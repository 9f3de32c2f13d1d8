"""Is a sensor alive and can it be believed: checks, states and thresholds. Pure, without a clock of its own."""
