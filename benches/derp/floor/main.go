//go:build linux

// Floor is the least that a relay can cost: it copies bytes between pairs of
// connections with epoll, read and write, and looks at nothing. Connections
// are paired in the order of their arrival.
package main

import (
	"fmt"
	"log"
	"net"
	"runtime"
	"syscall"
	"unsafe"
)

const bufferBytes = 16 << 10

func main() {
	runtime.GOMAXPROCS(1)
	runtime.LockOSThread()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	log.Fatal(run(int(file.Fd())))
}

func run(listener int) error {
	if err := syscall.SetNonblock(listener, true); err != nil {
		return err
	}
	poll, err := syscall.EpollCreate1(0)
	if err != nil {
		return err
	}
	watch := func(fd int) error {
		event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}
		return syscall.EpollCtl(poll, syscall.EPOLL_CTL_ADD, fd, &event)
	}
	if err := watch(listener); err != nil {
		return err
	}
	partner := map[int]int{}
	alone := -1
	buffer := make([]byte, bufferBytes)
	events := make([]syscall.EpollEvent, 64)
	for {
		ready, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(poll),
			uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), ^uintptr(0), 0, 0)
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return errno
		}
		for _, event := range events[:ready] {
			from := int(event.Fd)
			if from == listener {
				accepted, _, err := syscall.Accept4(listener, syscall.SOCK_NONBLOCK)
				if err != nil {
					continue
				}
				if err := syscall.SetsockoptInt(accepted, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
					return err
				}
				if alone < 0 {
					alone = accepted
					continue
				}
				partner[alone], partner[accepted] = accepted, alone
				if err := watch(alone); err != nil {
					return err
				}
				if err := watch(accepted); err != nil {
					return err
				}
				alone = -1
				continue
			}
			copyOnce(from, partner, buffer)
		}
	}
}

// copyOnce moves what one read gives. The load is bounded, so that a receiver
// always has room; where it has none the program waits for it.
func copyOnce(from int, partner map[int]int, buffer []byte) {
	to, found := partner[from]
	if !found {
		return
	}
	length, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(from),
		uintptr(unsafe.Pointer(&buffer[0])), uintptr(len(buffer)))
	if errno == syscall.EAGAIN || errno == syscall.EINTR {
		return
	}
	if errno != 0 || length == 0 {
		delete(partner, from)
		delete(partner, to)
		syscall.Close(from)
		syscall.Close(to)
		return
	}
	for rest := buffer[:length]; len(rest) > 0; {
		written, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(to),
			uintptr(unsafe.Pointer(&rest[0])), uintptr(len(rest)))
		if errno == 0 {
			rest = rest[written:]
		} else if errno != syscall.EAGAIN && errno != syscall.EINTR {
			return
		}
	}
}
