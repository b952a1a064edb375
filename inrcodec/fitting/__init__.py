"""From samples to weights: closed-form readouts, descent on the shared segments, and control of the size."""
