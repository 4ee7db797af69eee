package host

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/shoalkv/shoal/raftgroup/formation"
)

// An InsecureError refuses to listen where strangers could connect. The command
// line exits with code 64 for it.
type InsecureError struct{ Address string }

func (e *InsecureError) Error() string {
	return fmt.Sprintf("refusing to listen at %s without TLS: anyone who reaches it could read and write everything; "+
		"listen on a loopback address, or pass --insecure", e.Address)
}

// A ListenError names the address that could not be listened at; most often
// another process uses the port.
type ListenError struct {
	Address string
	Err     error
}

func (e *ListenError) Error() string {
	if errors.Is(e.Err, syscall.EADDRINUSE) {
		return fmt.Sprintf("listen at %s: the port is in use by another process", e.Address)
	}
	return fmt.Sprintf("listen at %s: %v", e.Address, e.Err)
}

func (e *ListenError) Unwrap() error { return e.Err }

// A LockedError says that another process uses the data directory.
type LockedError struct {
	Dir string
	PID int // of that process; 0: not known
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("data directory %s is in use by another process", e.Dir)
	}
	return fmt.Sprintf("data directory %s is in use by process %d", e.Dir, e.PID)
}

// checkListen refuses an address that is not loopback, unless insecure.
func checkListen(address string, insecure bool) error {
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return &ListenError{Address: address, Err: err}
	}
	if !insecure && !tcp.IP.IsLoopback() {
		return &InsecureError{Address: address}
	}
	return nil
}

// checkAdvertise refuses an address that nobody can reach.
func checkAdvertise(o Options) error {
	if o.Advertise != "" {
		if err := formation.CheckAddress(o.Advertise); err != nil {
			return &formation.UsageError{Problem: fmt.Sprintf("others can't reach this replica: %v", err)}
		}
		return nil
	}
	host, _, err := net.SplitHostPort(o.Listen)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return &formation.UsageError{Problem: fmt.Sprintf("this replica listens at %s, where others can't reach it: say at which address they can", o.Listen)}
	}
	return nil
}

// A dirLock is held on a data directory by the process that uses it. The kernel
// drops it when the process ends, however it ends.
type dirLock struct {
	file *os.File
	dir  fs.FileInfo // of the directory
}

const lockFile = "lock"

func lockDir(dir string) (*dirLock, error) {
	if err := createDir(dir, syncDir); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	return lockExisting(dir)
}

// lockExisting locks a directory that is there.
func lockExisting(dir string) (*dirLock, error) {
	path := filepath.Join(dir, lockFile)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &LockedError{Dir: dir, PID: lockHolder(path)}
		}
		return nil, fmt.Errorf("lock data directory: %w", &fs.PathError{Op: "flock", Path: path, Err: err})
	}
	l := &dirLock{file: file}
	if l.dir, err = os.Stat(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("lock data directory: %w", err), l.release())
	}
	// The process id only helps whoever finds the directory locked.
	if err := file.Truncate(0); err != nil {
		return nil, errors.Join(fmt.Errorf("lock data directory: %w", err), l.release())
	}
	if _, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return nil, errors.Join(fmt.Errorf("lock data directory: %w", err), l.release())
	}
	return l, nil
}

// LockStopped keeps the data directory of a stopped replica from being started, and
// changes nothing in it. release must be called. A *LockedError says that a process
// uses it.
func LockStopped(dir string) (release func() error, err error) {
	path := filepath.Join(dir, lockFile)
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return func() error { return nil }, nil // a copy: no process ever used it
	}
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &LockedError{Dir: dir, PID: lockHolder(path)}
		}
		return nil, fmt.Errorf("lock data directory: %w", &fs.PathError{Op: "flock", Path: path, Err: err})
	}
	return file.Close, nil
}

// createDir creates dir and whatever is missing above it, durably: what is fsynced
// below it later is lost all the same if its own name is.
func createDir(dir string, sync func(string) error) error {
	var above []string
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		if _, err := os.Stat(at); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		above = append(above, filepath.Dir(at))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range above {
		if err := sync(d); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(dir string) (err error) {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return d.Sync()
}

func lockHolder(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}

// release gives the lock up. The file stays: removing it could let two
// processes lock two files of the same name.
func (l *dirLock) release() error { return l.file.Close() }
