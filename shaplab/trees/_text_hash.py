"""The number that CatBoost keeps of a category's text: the lower half of CityHash64, version 1.0.

A model holds no texts but these numbers, so a reader of it has to compute them. The hash reads the
bytes as little-endian words: up to 16 bytes, up to 32 and up to 64 each have a formula of their
own, longer texts go through a state of seven words, 64 bytes at a time. All sums and products are
those of 64-bit words.
Source: CityHash (Pike and Alakuijala 2011), as CatBoost uses it. Cost: one pass over the bytes.

Chapter: trees/conditional_expectation.
"""

from __future__ import annotations

__all__ = ["signed_hash"]

_WORD = 2**64 - 1
_PRIMES = (0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F, 0xC949D7C7509E6557)
_PAIR_PRIME = 0x9DDFEA08EB382D69


def signed_hash(text: bytes) -> int:
    """The lower 32 bits of the hash, as a signed number."""
    size = len(text)
    if size <= 16:
        word = _hash_of_16(text)
    elif size <= 32:
        word = _hash_of_32(text)
    elif size <= 64:
        word = _hash_of_64(text)
    else:
        word = _hash_of_more(text)
    lower = word & 0xFFFFFFFF
    return lower - 2**32 if lower >= 2**31 else lower


def _bytes_number(text: bytes, start: int, size: int = 8) -> int:
    """Bytes from a place on, counted from the end where it is negative, as a number."""
    first = start if start >= 0 else len(text) + start
    return int.from_bytes(text[first : first + size], "little")


def _rotated(word: int, by: int) -> int:
    word &= _WORD
    return (word >> by | word << (64 - by)) & _WORD


def _stirred(word: int) -> int:
    word &= _WORD
    return word ^ word >> 47


def _pair(first: int, second: int) -> int:
    """One word of two."""
    first &= _WORD
    second &= _WORD
    once = _stirred((first ^ second) * _PAIR_PRIME)
    twice = _stirred((second ^ once) * _PAIR_PRIME)
    return twice * _PAIR_PRIME & _WORD


def _hash_of_16(text: bytes) -> int:
    _, _, prime, last_prime = _PRIMES
    size = len(text)
    if size > 8:
        end = _bytes_number(text, -8)
        return _pair(_bytes_number(text, 0), _rotated(end + size, size)) ^ end
    if size >= 4:
        return _pair(size + (_bytes_number(text, 0, 4) << 3), _bytes_number(text, -4, 4))
    if size == 0:
        return prime
    low = text[0] + (text[size // 2] << 8)
    high = size + (text[-1] << 2)
    return _stirred(low * prime ^ high * last_prime) * prime & _WORD


def _hash_of_32(text: bytes) -> int:
    prime, second_prime, third_prime, last_prime = _PRIMES
    size = len(text)
    start = _bytes_number(text, 0) * second_prime
    middle = _bytes_number(text, 8)
    end = _bytes_number(text, -8) * third_prime
    before = _bytes_number(text, -16) * prime
    return _pair(
        _rotated(start - middle, 43) + _rotated(end, 30) + before,
        start + _rotated(middle ^ last_prime, 20) - end + size,
    )


def _half(text: bytes, place: int, start: int, last: int) -> tuple[int, int]:
    """Two words of 32 bytes from a place on, of what stands first, and of the last word."""
    total = start
    turned = _rotated(total + last, 52)
    sums = _rotated(total, 37)
    total += _bytes_number(text, place + 8)
    sums += _rotated(total, 7)
    total += _bytes_number(text, place + 16)
    return total + last, turned + _rotated(total, 31) + sums


def _hash_of_64(text: bytes) -> int:
    prime, _, third_prime, _ = _PRIMES
    size = len(text)
    start = _bytes_number(text, 0) + (size + _bytes_number(text, -16)) * prime
    head, head_sums = _half(text, 0, start, _bytes_number(text, 24))
    end = _bytes_number(text, 16) + _bytes_number(text, -32)
    tail, tail_sums = _half(text, size - 32, end, _bytes_number(text, -8))
    both = _stirred((head + tail_sums) * third_prime + (tail + head_sums) * prime)
    return _stirred(both * prime + head_sums) * third_prime & _WORD


def _absorbed(text: bytes, place: int, total: int, turned: int) -> tuple[int, int]:
    """A pair of words after 32 more bytes."""
    start = total + _bytes_number(text, place)
    last = _bytes_number(text, place + 24)
    turned = _rotated(turned + start + last, 21)
    total = start + _bytes_number(text, place + 8) + _bytes_number(text, place + 16)
    turned += _rotated(total, 44)
    return total + last, turned + start


def _hash_of_more(text: bytes) -> int:
    prime, second_prime, _, _ = _PRIMES
    size = len(text)
    first = _bytes_number(text, 0)
    second = _bytes_number(text, -16) ^ second_prime
    third = _bytes_number(text, -56) ^ prime
    left = _absorbed(text, size - 64, size, second)
    right = _absorbed(text, size - 32, size * second_prime, prime)
    third += _stirred(left[1]) * second_prime
    first = _rotated(third + first, 39) * second_prime
    second = _rotated(second, 33) * second_prime
    for place in range(0, size - 1 & ~63, 64):
        first = (
            _rotated(first + second + left[0] + _bytes_number(text, place + 16), 37) * second_prime
        )
        second = _rotated(second + left[1] + _bytes_number(text, place + 48), 42) * second_prime
        first ^= right[1]
        second ^= left[0]
        third = _rotated(third ^ right[0], 33)
        left = _absorbed(text, place, left[1] * second_prime, first + right[0])
        right = _absorbed(text, place + 32, third + right[1], second)
        first, third = third, first
    return _pair(
        _pair(left[0], right[0]) + _stirred(second) * second_prime + third,
        _pair(left[1], right[1]) + first,
    )
