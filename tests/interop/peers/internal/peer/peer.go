// Package peer holds what all programs of this module do alike: listen on
// loopback, say so, and bound their cores.
package peer

import (
	"flag"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
)

// Listen opens a port on loopback (0: a free one) and writes
// "listening on 127.0.0.1:<port>" to stderr when the server asks for its first
// connection, not before: whoever reads that line may connect at once.
func Listen(port int) (net.Listener, error) {
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	return &announced{Listener: l}, nil
}

type announced struct {
	net.Listener
	once sync.Once
}

func (a *announced) Accept() (net.Conn, error) {
	a.once.Do(func() { fmt.Fprintf(os.Stderr, "listening on %s\n", a.Addr()) })
	return a.Listener.Accept()
}

// CoresFlag defines -gomaxprocs, so that a benchmark can give each side its
// share of the cores.
func CoresFlag() {
	flag.Func("gomaxprocs", "use at most `N` cores (default: all)", func(text string) error {
		cores, err := strconv.Atoi(text)
		if err != nil || cores < 1 {
			return fmt.Errorf("want a number of at least 1")
		}
		runtime.GOMAXPROCS(cores)
		return nil
	})
}
