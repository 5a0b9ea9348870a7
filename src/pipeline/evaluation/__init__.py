"""What a prediction is worth: metrics per case, their summary with intervals, and the pictures and tables of it."""
