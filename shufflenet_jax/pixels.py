"""The range of pixels that networks are trained on; nothing here needs JAX."""

PIXEL_MEAN = (0.485, 0.456, 0.406)
"""Mean of ImageNet's training pixels, in [0, 1], by channel (R, G, B)."""

PIXEL_STD = (0.229, 0.224, 0.225)
"""Their standard deviation."""
