package forward

import (
	"sync"
	"testing"
)

// Large datagrams of one port may be in the hands of several threads at once.
func TestLargeDatagramsOfOnePort(t *testing.T) {
	to := phone(t, "127.0.0.1")
	free := phone(t, "127.0.0.1")
	from := addrOf(free)
	free.Close()
	errs := make(chan error, 4*100)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				errs <- sendLarge(from, addrOf(to), make([]byte, 4000), -1, -1)
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got, source := receive(t, to); len(got) != 4000 || source != from {
		t.Errorf("%d bytes from %v, want 4000 from %v", len(got), source, from)
	}
}
