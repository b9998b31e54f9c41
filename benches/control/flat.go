package main

import (
	"fmt"
	"os"
	"slices"
)

// series is a measure that has to stay flat, taken again and again at the same pace.
type series []int

// flatness is how much a measure may grow: the median of the last fifth must not be larger
// than that of the second fifth by more than a share of it and a constant. The first fifth is left
// out, in which caches and buffers fill up, and medians do not see short peaks.
type flatness struct {
	share    float64
	constant int
}

// Private memory moves with whatever devices do at a moment. A leak of one connection for each
// reconnect or of one node for each join is larger than this by far.
var (
	flatMemory      = flatness{0.10, 1 << 20}
	flatDescriptors = flatness{0, 8}
	// The audit log is full after the first fifth. redb doubles a file that is full, whatever little it needs.
	flatFile = flatness{1, 128 << 10}
)

// fifths are the medians of the second and the last fifth.
func (s series) fifths() (second, last int) {
	length := len(s) / 5
	if length == 0 {
		return 0, 0
	}
	return median(s[length : 2*length]), median(s[len(s)-length:])
}

func median(s series) int {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[len(sorted)/2]
}

// check says what is wrong with a series, if anything is.
func (f flatness) check(what string, s series) error {
	second, last := s.fifths()
	if allowed := second + int(f.share*float64(second)) + f.constant; last > allowed {
		return fmt.Errorf("%s is not flat: %d in the second fifth, %d in the last, at most %d are allowed", what, second, last, allowed)
	}
	return nil
}

// sampled is what is measured of a server while it runs.
type sampled struct{ memory, descriptors, file series }

// descriptors is the number of files and sockets that a process has open.
func (p process) descriptors() int {
	files, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid))
	return len(files)
}

func fileSize(name string) int {
	info, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return int(info.Size())
}
