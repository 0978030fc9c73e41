package tc

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// heldBy says who holds a namespace's lock, of which the file is another daemon's or a stranger's.
func heldBy(file *os.File) *heldError {
	daemon := readWriter(file)
	// The one that the kernel names wrote the file, if it is a daemon. Where the kernel names none, it lives in
	// another PID namespace, as a daemon might.
	if holder := flockHolder(file); holder != 0 && holder != daemon {
		return &heldError{stranger: processName(holder)}
	}
	return &heldError{pid: daemon}
}

// readWriter reads which daemon wrote the file of a lock. Its first line is "pid N".
func readWriter(file *os.File) int {
	var text [32]byte
	n, _ := file.ReadAt(text[:], 0)
	line, _, _ := strings.Cut(string(text[:n]), "\n")
	pid, err := strconv.Atoi(strings.TrimPrefix(line, "pid "))
	if err != nil {
		return 0
	}
	return pid
}

// holderOf names who holds a lock, or says how to find him.
func holderOf(file *os.File) string {
	if pid := flockHolder(file); pid != 0 {
		return processName(pid)
	}
	return fmt.Sprintf("a process that \"fuser -v %s\" names", file.Name())
}

func processName(pid int) string {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		// It took the lock and ended; a child has it by inheritance.
		return fmt.Sprintf("what pid %d left running", pid)
	}
	return fmt.Sprintf("%s (pid %d)", printable(strings.TrimSuffix(string(comm), "\n")), pid)
}

// flockHolder is the process that has locked the file, 0 if the kernel does not tell. Its list has lines such
// as "1: FLOCK  ADVISORY  WRITE 4711 00:19:1234 0 EOF".
func flockHolder(file *os.File) int {
	var st unix.Stat_t
	if unix.Fstat(int(file.Fd()), &st) != nil {
		return 0
	}
	list, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer list.Close()
	place := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for lines := bufio.NewScanner(list); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[1] != "FLOCK" || fields[5] != place {
			continue // among them those that wait, which have "->" in the second field
		}
		if pid, err := strconv.Atoi(fields[4]); err == nil && pid > 0 {
			return pid
		}
	}
	return 0
}
