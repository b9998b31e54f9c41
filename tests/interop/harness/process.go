package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Memory is what a process holds in RAM.
type Memory struct {
	// Resident is all of it, Private the part that is not backed by files.
	Resident, Private int
}

// MemoryOf reads the memory of a process in bytes.
func MemoryOf(t T, pid int) Memory {
	t.Helper()
	return Memory{
		Resident: procNumber(t, pid, "status", "VmRSS:") << 10,
		Private:  procNumber(t, pid, "status", "RssAnon:") << 10,
	}
}

// CPUTime is the time that all threads of a process have run, exact to the
// nanosecond (/proc/PID/stat counts in hundredths of a second).
func CPUTime(t T, pid int) time.Duration {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("process %d: no schedstat: %v", pid, err)
	}
	var sum time.Duration
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		first, _, _ := strings.Cut(string(text), " ")
		ran, _ := strconv.ParseInt(first, 10, 64)
		sum += time.Duration(ran)
	}
	return sum
}

// Written is what a process has written: to any file or socket, and to disk.
type Written struct{ Anywhere, Disk int }

// WrittenBy reads the counters of a process in bytes.
func WrittenBy(t T, pid int) Written {
	t.Helper()
	return Written{
		Anywhere: procNumber(t, pid, "io", "wchar:"),
		Disk:     procNumber(t, pid, "io", "write_bytes:"),
	}
}

// procNumber finds the number after a label in a file of /proc.
func procNumber(t T, pid int, file, label string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		t.Fatalf("process %d: %v", pid, err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, label); found {
			number, err := strconv.Atoi(strings.Fields(rest)[0])
			if err == nil {
				return number
			}
		}
	}
	t.Fatalf("process %d: no %s in %s", pid, label, file)
	return 0
}
