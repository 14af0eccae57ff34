"""The demo model's world: what it is trained to draw, how captions speak of it, how it is measured."""
