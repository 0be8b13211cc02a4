"""In which order tables of 64-bit numbers tell ``kernel`` where things are; addresses, where not counts."""

#: Of a linear layer: numbers, scale, bias and lift (0: none), how many inputs and outputs it has; how many
#: rows in fp32 stand beside, and of which neurons; how many keys do, and where they and their values are.
WEIGHTS, SCALE, BIAS, LIFT, INPUTS, OUTPUTS, COUNT, NEURONS, ROWS, RANK, OF_KEYS, OF_VALUES = range(12)
LINEAR = 12

#: Of a layer of the network: two gains, and four linear layers as above.
BEFORE, BETWEEN = range(2)
QKV, OUT, UP, DOWN = range(2, 2 + 4 * LINEAR, LINEAR)
LAYER = 2 + 4 * LINEAR

#: Of the threads: functions that say which one this is and how many there are, and that wait for all.
NUMBER, THREADS, BARRIER = range(3)

#: Of one product by itself: how many rows, where they are and go; room for them rounded, for a factor of
#: each, and for what each thread writes to. Behind it stands its linear layer.
COUNTED, GIVEN, TO, ROUNDED, FACTORS, EACH = range(3, 9)
ALONE = 9

#: Of a whole pass: layers and how many, head, gain before it, epsilon (bits of a float), width, how many
#: heads, how many of keys, size of one.
LAYERS, DEPTH, HEAD, LAST, EPSILON, BROAD, HEADS, SHARED, SIZE = range(3, 12)
#: What each thread has by itself, and how many bytes; what all write to, product by product.
OWN, OWNED, READ, SEEN, MADE, UPPED, ACTED = range(12, 19)
#: What is read: hidden states, cosines and sines, the first layer to run, that at the mark and what is kept
#: there, how many tokens, behind how many; keys and values, and bytes of a layer and a head of them.
HIDDEN, COSINES, SINES, FIRST, MARK, KEPT, TOKENS, START, KEYS, VALUES, OF_LAYER, OF_HEAD = range(19, 31)
#: Room of each thread for so many scores; how many logits are asked for, and where they go.
SCORES, ROOM, ASKED, LOGITS = range(31, 35)
TOLD = 35
