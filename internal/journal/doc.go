// Package journal keeps records on disk for the next process: the latest value of
// each key, in an append-only log. It does not know what the records mean.
//
//	Put, Delete ──▶ write(2) at the end of the newest segment ──▶ return
//	                          │ 10 times a second
//	                          ▼
//	              fdatasync; compaction when more is dead than alive
//
// What it promises:
//
//   - When Put or Delete return, the kernel has the record: a process that is
//     killed loses nothing. A machine that crashes loses what was written in the
//     last tenth of a second, with a slow disk in the last second.
//   - What is read back was written: every record carries checksums that also
//     cover its place in the file, so neither damage nor bytes inside a value can
//     pass for a record.
//   - A torn end is cut off. Damage in the middle costs the records it hit, and is
//     reported with its place; what lies behind it is found again.
//   - When the disk is full or fails, nothing waits: records are kept in memory, up to
//     a bound, and written when the disk has recovered.
//
// A folder has one segment, or several while one takes over from another:
//
//	name     00000007-5af3…91.journal: a number that rises, and the salt of its checksums
//	header   "mp-journ" | version u16 | 0 u16 | CRC32C of the 12 bytes before u32
//	frame    length u32 | CRC32C of the payload u32 | CRC32C of salt, offset and the 8 bytes before u32 | payload
//	payload  1 put or 2 delete | length of the key, uvarint | key | value
//
// Numbers are little endian. A file is removed when everything in it that still
// counts stands in a later one.
package journal
