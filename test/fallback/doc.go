// Package fallback runs the real program in every circumstance in which it moves
// packets in another way: with all rights, with some, with none, on kernels that lack
// something, and as the configuration asks. In each of them the same calls are made,
// and the program has to say by which way it moves them, and why not by a better one.
package fallback
