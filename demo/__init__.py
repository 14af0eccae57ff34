"""The demo model's world: its pictures, captions for them, and how they are measured."""
