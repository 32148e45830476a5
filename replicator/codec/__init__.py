"""Pure codecs: bytes in, values out, no input or output.

Every type has a Decoder of its module's own, built at import. msgspec finds out how to decode a
struct when it is asked for the first time, and two threads that ask at once can crash the
interpreter (seen with msgspec 0.21: SIGSEGV in a daemon whose threads both read a first catalog).
"""
