package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// series is a measure that has to stay flat, taken again and again at the same pace.
type series []int

// flatness is how much a measure may grow: the median of the last fifth must not be larger
// than that of the middle one by more than a share of it and a constant. The fifths before are left
// out, in which caches and buffers fill up (a minute after a start), and medians do not see short peaks.
type flatness struct {
	share    float64
	constant int
}

// Private memory moves with whatever devices do at a moment. A leak of one connection for each
// reconnect or of one node for each join is larger than this by far.
var (
	flatMemory      = flatness{0.10, 1 << 20}
	flatDescriptors = flatness{0, 8}
	// The audit log is full long before the middle, and redb has doubled the file for the last time.
	flatFile = flatness{0, 128 << 10}
)

// fifths are the medians of the five fifths.
func (s series) fifths() (medians [5]int) {
	length := len(s) / 5
	if length == 0 {
		return medians
	}
	for i := range medians {
		medians[i] = median(s[i*length : (i+1)*length])
	}
	return medians
}

// in shows the fifths with one decimal, divided by a unit.
func (s series) in(unit float64) string {
	shown := make([]string, 0, 5)
	for _, value := range s.fifths() {
		shown = append(shown, fmt.Sprintf("%.1f", float64(value)/unit))
	}
	return strings.Join(shown, " ")
}

func median(s series) int {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[len(sorted)/2]
}

// check says what is wrong with a series, if anything is.
func (f flatness) check(what string, s series) error {
	fifths := s.fifths()
	middle, last := fifths[2], fifths[4]
	if allowed := middle + int(f.share*float64(middle)) + f.constant; last > allowed {
		return fmt.Errorf("%s is not flat: %d in the middle fifth, %d in the last, at most %d are allowed", what, middle, last, allowed)
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
