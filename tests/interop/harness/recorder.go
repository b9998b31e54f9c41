package harness

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// Recorder is a file in a FUSE file system of its own that records every write and every
// sync. With a loop device on it, it records what a real file system asks of its disk, and
// makes from that what the disk has after a power cut at any moment.
type Recorder struct {
	// Path is the file.
	Path string

	fd     int
	mu     sync.Mutex
	begin  []byte
	now    []byte
	events []diskEvent
}

// diskEvent is a write, or a sync if it has no data.
type diskEvent struct {
	offset int64
	data   []byte
}

// Record makes such a file with this content, which must not change its size. Where the
// machine has no FUSE, it says so.
func Record(t T, dir string, content []byte) (*Recorder, error) {
	t.Helper()
	place := filepath.Join(dir, "disk")
	if err := os.Mkdir(place, 0o700); err != nil {
		return nil, err
	}
	fd, err := syscall.Open("/dev/fuse", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/fuse: %w", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40700,user_id=0,group_id=0", fd)
	if err := syscall.Mount("hearth-disk", place, "fuse", syscall.MS_NOSUID|syscall.MS_NODEV, options); err != nil {
		syscall.Close(fd)
		return nil, fmt.Errorf("mount a FUSE file system: %w", err)
	}
	r := &Recorder{
		Path: filepath.Join(place, "image"), fd: fd,
		begin: slices.Clone(content), now: slices.Clone(content),
	}
	served := make(chan struct{})
	go func() { r.serve(); close(served) }()
	t.Cleanup(func() {
		syscall.Unmount(place, syscall.MNT_DETACH)
		syscall.Close(fd)
	})
	return r, nil
}

// Position is how many events there were.
func (r *Recorder) Position() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.events)
}

// Syncs is how many of them are syncs.
func (r *Recorder) Syncs() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	count := 0
	for _, event := range r.events {
		if event.data == nil {
			count++
		}
	}
	return count
}

// Cut is how much of what was not synced survives a power cut.
type Cut string

// Cuts are the kinds of power cuts. A disk writes sectors of 512 bytes as a whole.
var Cuts = []Cut{"all kept", "all lost", "some writes lost", "some sectors lost"}

// AfterCut is what the disk has after a power cut when there were so many events.
func (r *Recorder) AfterCut(position int, cut Cut, chance *rand.Rand) []byte {
	r.mu.Lock()
	events := r.events[:position]
	r.mu.Unlock()
	synced := 0
	for at, event := range events {
		if event.data == nil {
			synced = at
		}
	}
	image := slices.Clone(r.begin)
	for at, event := range events {
		if at < synced || cut == "all kept" || cut == "some writes lost" && chance.IntN(2) == 0 {
			copy(image[event.offset:], event.data)
			continue
		}
		for part := 0; cut == "some sectors lost" && part < len(event.data); part += 512 {
			if chance.IntN(2) == 0 {
				copy(image[event.offset+int64(part):], event.data[part:min(part+512, len(event.data))])
			}
		}
	}
	return image
}

// The protocol. Source: include/uapi/linux/fuse.h of Linux, version 7.31.
const (
	fuseLookup, fuseForget, fuseGetattr, fuseSetattr = 1, 2, 3, 4
	fuseOpen, fuseRead, fuseWrite, fuseStatfs        = 14, 15, 16, 17
	fuseRelease, fuseFsync, fuseFlush, fuseInit      = 18, 20, 25, 26
	fuseOpendir, fuseReleasedir, fuseDestroy         = 27, 29, 38
	fuseBatchForget                                  = 42

	fuseMaxWrite  = 128 << 10
	fuseBigWrites = 1 << 5
)

// serve answers the kernel until the file system is gone.
func (r *Recorder) serve() {
	room := make([]byte, fuseMaxWrite+4096)
	for {
		n, err := syscall.Read(r.fd, room)
		if errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ENOENT) {
			continue
		}
		if err != nil || n < 40 {
			return
		}
		in := room[:n]
		opcode := binary.LittleEndian.Uint32(in[4:])
		if opcode == fuseForget || opcode == fuseBatchForget {
			continue
		}
		body, errno := r.answer(opcode, binary.LittleEndian.Uint64(in[16:]), in[40:])
		out := make([]byte, 16, 16+len(body))
		out = append(out, body...)
		binary.LittleEndian.PutUint32(out, uint32(len(out)))
		binary.LittleEndian.PutUint32(out[4:], uint32(-int32(errno)))
		copy(out[8:16], in[8:16])
		if _, err := syscall.Write(r.fd, out); err != nil && !errors.Is(err, syscall.ENOENT) {
			return
		}
	}
}

func (r *Recorder) answer(opcode uint32, node uint64, in []byte) ([]byte, syscall.Errno) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []byte
	u32 := func(values ...uint32) {
		for _, value := range values {
			out = binary.LittleEndian.AppendUint32(out, value)
		}
	}
	u64 := func(values ...uint64) {
		for _, value := range values {
			out = binary.LittleEndian.AppendUint64(out, value)
		}
	}
	attributes := func(node uint64) {
		size, mode := uint64(len(r.now)), uint32(syscall.S_IFREG|0o600)
		if node == 1 {
			size, mode = 0, syscall.S_IFDIR|0o700
		}
		u64(node, size, (size+511)/512, 0, 0, 0)
		u32(0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
	}
	switch opcode {
	case fuseInit:
		u32(7, 31, 128<<10, fuseBigWrites)
		out = binary.LittleEndian.AppendUint16(out, 12)
		out = binary.LittleEndian.AppendUint16(out, 9)
		u32(fuseMaxWrite, 1)
		out = append(out, make([]byte, 36)...)
	case fuseLookup:
		if string(in) != "image\x00" {
			return nil, syscall.ENOENT
		}
		u64(2, 0, 3600, 3600)
		u32(0, 0)
		attributes(2)
	case fuseGetattr, fuseSetattr:
		u64(3600)
		u32(0, 0)
		attributes(node)
	case fuseOpen, fuseOpendir:
		u64(0)
		u32(0, 0)
	case fuseRead:
		offset := binary.LittleEndian.Uint64(in[8:])
		size := uint64(binary.LittleEndian.Uint32(in[16:]))
		offset = min(offset, uint64(len(r.now)))
		out = append(out, r.now[offset:min(offset+size, uint64(len(r.now)))]...)
	case fuseWrite:
		offset := int64(binary.LittleEndian.Uint64(in[8:]))
		data := slices.Clone(in[40:])
		if offset+int64(len(data)) > int64(len(r.now)) {
			return nil, syscall.ENOSPC
		}
		copy(r.now[offset:], data)
		r.events = append(r.events, diskEvent{offset, data})
		u32(uint32(len(data)), 0)
	case fuseFsync:
		r.events = append(r.events, diskEvent{})
	case fuseStatfs:
		out = make([]byte, 80)
	case fuseFlush, fuseRelease, fuseReleasedir, fuseDestroy:
	default:
		return nil, syscall.ENOSYS
	}
	return out, 0
}
