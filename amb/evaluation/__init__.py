"""Every figure and every verdict: statistics, calibration, utility and similarity, activations."""
