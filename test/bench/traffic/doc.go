// Package traffic sends RTP to a relay and takes away what it sends on, inside the
// kernel: one thread makes millions of packets a second, and no thread is woken
// for those that arrive. It needs root and Linux 5.18.
//
//	phones' namespace         relay's namespace
//	Send ─▶ device ══ cable ══ device ─▶ the relay
//	                           device ◀──────┘
//	       taken away ◀── on its way out
package traffic

//go:generate go tool -modfile=../../../tools/go.mod bpf2go -tags linux -cc clang-14 -strip llvm-strip-14 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Wno-unused-variable -Werror -mcpu=v3" -no-global-types programs bpf/traffic.c
