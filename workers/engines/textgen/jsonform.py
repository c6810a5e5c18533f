"""JSON as a machine over bytes: `step(state, byte)` gives the next state, or None where JSON forbids it.

A state is a tuple of marks, innermost last; the empty tuple means the value is complete. Marks:

    v  any value             V  an object only
    [  first item or ]       ]  comma or ]
    {  first key or }        ,  key        :  colon        }  comma or }
    s  text                  k  text of a key (then colon)
    se ke  after a backslash              s4x .. k1x  hexadecimal digits to come
    u3s .. u1k  bytes of a character to come
    -  after a minus   0  after a leading zero   1  whole digits   .  after the point   f  fraction
    E  after e         +  after its sign         x  exponent       =...  the rest of true, false or null
"""

from __future__ import annotations

JsonState = tuple[str, ...]

ANY: JsonState = ("v",)
OBJECT: JsonState = ("V",)
BLANKS = b" \t\r\n"
DIGITS = b"0123456789"
HEX = b"0123456789abcdefABCDEF"
ESCAPES = b'"\\/bfnrtu'
WIDE = ((0xC2, 0xDF, 1), (0xE0, 0xEF, 2), (0xF0, 0xF4, 3))
BEGINS = {"{": "{", "[": "[", '"': "s", "-": "-", "0": "0", "t": "=rue", "f": "=alse", "n": "=ull"}
BEGINS |= dict.fromkeys("123456789", "1")
CLOSES = {"{": "}", "}": "}", "[": "]", "]": "]"}
STRUCTURE = {
    ("V", "{"): ("{",),
    ("{", '"'): ("}", "k"),
    (",", '"'): ("}", "k"),
    (":", ":"): ("v",),
    ("}", ","): (",",),
    ("]", ","): ("]", "v"),
}
NUMBER = {
    "-": ((b"0", "0"), (b"123456789", "1")),
    "0": ((b".", "."), (b"eE", "E")),
    "1": ((DIGITS, "1"), (b".", "."), (b"eE", "E")),
    ".": ((DIGITS, "f"),),
    "f": ((DIGITS, "f"), (b"eE", "E")),
    "E": ((DIGITS, "x"), (b"+-", "+")),
    "+": ((DIGITS, "x"),),
    "x": ((DIGITS, "x"),),
}
NUMBER_MAY_END = "01fx"


ESCAPED = {"se": "s", "ke": "k"}


def step(state: JsonState, byte: int) -> JsonState | None:
    if not state:
        return None
    below, top = state[:-1], state[-1]
    if top in NUMBER:
        return number_step(below, top, byte)
    if top[0] in MACHINES:
        return MACHINES[top[0]](below, top, byte)
    if byte in BLANKS:
        return state
    return structure_step(below, top, chr(byte))


def number_step(below: JsonState, top: str, byte: int) -> JsonState | None:
    for allowed, following in NUMBER[top]:
        if byte in allowed:
            return (*below, following)
    # A number ends where something else begins; that byte belongs to what holds the number.
    return step(below, byte) if top in NUMBER_MAY_END else None


def word_step(below: JsonState, top: str, byte: int) -> JsonState | None:
    if byte != ord(top[1]):
        return None
    return below if len(top) == 2 else (*below, "=" + top[2:])


def structure_step(below: JsonState, top: str, character: str) -> JsonState | None:
    if top == "v":
        return value_step(below, character)
    if top == "[" and character != "]":
        return value_step((*below, "]"), character)
    if character in CLOSES.get(top, ""):
        return below
    following = STRUCTURE.get((top, character))
    return None if following is None else (*below, *following)


def value_step(held: JsonState, character: str) -> JsonState | None:
    begun = BEGINS.get(character)
    return None if begun is None else (*held, begun)


def text_step(below: JsonState, top: str, byte: int) -> JsonState | None:
    """Inside a text; `kind` says what the text is, and so what follows its end."""
    kind = top[0]
    if len(top) == 3:
        return digit_step(below, top, byte)
    if top in ESCAPED:
        following = f"{kind}4x" if byte == ord("u") else kind
        return (*below, following) if byte in ESCAPES else None
    if byte == ord('"'):
        return (*below, ":") if kind == "k" else below
    if byte == ord("\\"):
        return (*below, kind + "e")
    return (*below, kind) if 0x20 <= byte < 0x80 else wide_step(below, kind, byte)


def digit_step(below: JsonState, top: str, byte: int) -> JsonState | None:
    left = int(top[1]) - 1
    following = f"{top[0]}{left}x" if left else top[0]
    return (*below, following) if byte in HEX else None


def wide_step(below: JsonState, kind: str, byte: int) -> JsonState | None:
    """The first byte of a character outside ASCII."""
    for first, last, more in WIDE:
        if first <= byte <= last:
            return (*below, f"u{more}{kind}")
    return None


def character_step(below: JsonState, top: str, byte: int) -> JsonState | None:
    left = int(top[1]) - 1
    following = f"u{left}{top[2]}" if left else top[2]
    return (*below, following) if 0x80 <= byte <= 0xBF else None


MACHINES = {"s": text_step, "k": text_step, "u": character_step, "=": word_step}
