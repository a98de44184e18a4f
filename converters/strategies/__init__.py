"""How layers take the place of convolutions: keep the function, start anew, fit, approximate; one strategy a file."""
