"""From noise to latents: one image's state, and the loop in which all images share UNet calls."""
