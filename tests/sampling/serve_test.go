package sampling

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"ambit/tests/e2e/stage"
	"ambit/tests/harness"
)

// answer is what the server says, with the status; its length is the same for all of them.
const answer = "HTTP/1.1 %03d Answered\r\nContent-Length: 2\r\n\r\nok"

var answerSize = len(fmt.Sprintf(answer, 200))

// serve is the role of an HTTP/1.1 server on a port of all addresses. The query says how to answer: "?STATUS", or
// "?STATUS&DURATION" for an answer after that time; without one it is 200 at once. It is as small as can be, as the
// traffic is what a test waits for.
func serve(args []string) error {
	listener, err := net.Listen("tcp", ":"+args[0])
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			_ = talk(conn) // the client tells of it
		}()
	}
}

// talk answers the requests of a connection in turn.
func talk(conn net.Conn) error {
	in := bufio.NewReader(conn)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		status, wait, err := wanted(line)
		if err != nil {
			return err
		}
		for len(line) > 2 {
			if line, err = in.ReadSlice('\n'); err != nil {
				return err
			}
		}
		if wait > 0 {
			time.Sleep(wait)
		}
		if _, err := fmt.Fprintf(conn, answer, status); err != nil {
			return err
		}
	}
}

// wanted reads the query of a request line.
func wanted(line []byte) (status int, wait time.Duration, err error) {
	_, query, found := bytes.Cut(line, []byte("?"))
	if !found {
		return 200, 0, nil
	}
	query, _, _ = bytes.Cut(query, []byte(" "))
	first, second, _ := bytes.Cut(query, []byte("&"))
	status, err = strconv.Atoi(string(first))
	if len(second) > 0 {
		var failed error
		wait, failed = time.ParseDuration(string(second))
		err = errors.Join(err, failed)
	}
	return status, wait, err
}

// startServer starts a server of this name in the namespace, and waits until it listens.
func startServer(t testing.TB, ns *harness.Namespace, name string, port uint16) {
	t.Helper()
	stage.StartRole(t, ns, nil, port, name, fmt.Sprint(port))
}

// readAnswer reads one answer into a buffer of its size.
func readAnswer(conn io.Reader, buffer []byte) error {
	if _, err := io.ReadFull(conn, buffer); err != nil {
		return fmt.Errorf("read an answer: %w", err)
	}
	if !bytes.HasPrefix(buffer, []byte("HTTP/1.1 ")) {
		return fmt.Errorf("the answer was %q", buffer)
	}
	return nil
}
