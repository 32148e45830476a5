"""Pure codecs: bytes in, values out, no input or output."""
