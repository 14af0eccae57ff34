"""The picture as a file: pixels to PNG, JPEG or WebP, and the settings that travel in it."""
