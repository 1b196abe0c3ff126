"""What the image path costs and gains: see loadtest/bench_images.py."""
