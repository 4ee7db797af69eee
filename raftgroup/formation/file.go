package formation

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/shoalkv/shoal/raftgroup/logstore"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// FileName is the identity file's name in the data directory.
const FileName = "identity.json"

// StateDir is the name of the directory of the machine's store in the data
// directory.
const StateDir = "state"

// format is the version of the data directory's formats.
const format = 1

// A phase is how far a data directory has come. It only moves forward.
type phase string

const (
	// phaseEmpty: the disk has drawn its ServerID.
	phaseEmpty phase = "empty"
	// phasePrepared: it has promised to be part of an identity, unless that is
	// superseded by one of a higher ballot.
	phasePrepared phase = "prepared"
	// phaseFormed: it has the identity for good.
	phaseFormed phase = "formed"
	// phaseStarted: its stores were created, so that a missing one is a loss.
	phaseStarted phase = "started"
)

// A record is the content of the identity file.
type record struct {
	Format   int              `json:"format"`
	Group    shardcfg.GroupID `json:"group"`
	Label    string           `json:"label"`
	ServerID string           `json:"server_id"`
	Phase    phase            `json:"phase"`
	// Ballot is that of the identity that was prepared last.
	Ballot uint64 `json:"ballot"`
	// Identity is nil in phaseEmpty.
	Identity *Identity `json:"identity,omitempty"`
	// Renumbered are the addresses that members of the group were given while it
	// was stopped, by their server ids.
	Renumbered map[string]AddressMove `json:"renumbered,omitempty"`
}

func (r *record) formed() bool { return r.Phase == phaseFormed || r.Phase == phaseStarted }

// An envelope is the identity file: the record, and the CRC32C of its compact
// encoding in hexadecimal.
type envelope struct {
	CRC    string          `json:"crc32c"`
	Record json.RawMessage `json:"record"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeRecord(r *record) ([]byte, error) {
	compact, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode identity: %w", err)
	}
	e := envelope{CRC: fmt.Sprintf("%08x", crc32.Checksum(compact, castagnoli)), Record: compact}
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode identity: %w", err)
	}
	return append(b, '\n'), nil
}

// decodeRecord reads an identity file, strictly.
func decodeRecord(b []byte) (*record, error) {
	var e envelope
	if err := strictJSON(b, &e); err != nil {
		return nil, err
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, e.Record); err != nil {
		return nil, err
	}
	if got := fmt.Sprintf("%08x", crc32.Checksum(compact.Bytes(), castagnoli)); got != e.CRC {
		return nil, fmt.Errorf("checksum is %s, the file says %q", got, e.CRC)
	}
	var r record
	if err := strictJSON(compact.Bytes(), &r); err != nil {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	// The decoder repairs silently: the case of names, fields that are there twice,
	// half characters. Only what was written is believed.
	written, err := encodeRecord(&r)
	if err == nil && !bytes.Equal(written, b) {
		err = errors.New("it is not as it was written")
	}
	return &r, err
}

func strictJSON(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON value")
	}
	return nil
}

// check finds records that no version of this program writes.
func (r *record) check() error {
	if r.Format != format {
		return fmt.Errorf("format %d is not known to this version, which writes %d", r.Format, format)
	}
	if !labelPattern.MatchString(r.Label) || LabelOf(r.ServerID) != r.Label {
		return fmt.Errorf("server id %q does not fit id %q", r.ServerID, r.Label)
	}
	switch r.Phase {
	case phaseEmpty:
		if r.Identity != nil || r.Ballot != 0 {
			return errors.New("an empty replica has an identity")
		}
		return nil
	case phasePrepared, phaseFormed, phaseStarted:
	default:
		return fmt.Errorf("phase %q is not known", r.Phase)
	}
	if r.Identity == nil {
		return errors.New("the identity is missing")
	}
	id := r.Identity
	if id.Group != r.Group || id.Label != r.Label || id.ServerID != r.ServerID {
		return fmt.Errorf("the identity is of another replica: %q of group %d", id.ServerID, id.Group)
	}
	return id.check()
}

// readRecord reads the identity file of dir: nil if there is none and the
// directory holds nothing else either. Damage is a *DamagedError.
func readRecord(dir string) (*record, error) {
	path := filepath.Join(dir, FileName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, checkEmpty(dir, path)
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	r, err := decodeRecord(b)
	if err != nil {
		return nil, &DamagedError{Path: path, Problem: err.Error()}
	}
	return r, nil
}

// checkEmpty refuses a directory that lost its identity but not its data.
func checkEmpty(dir, path string) error {
	log, err := logstore.Any(dir)
	if err != nil {
		return fmt.Errorf("read data directory: %w", err)
	}
	_, err = os.Stat(filepath.Join(dir, StateDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read data directory: %w", err)
	}
	if log || err == nil {
		return &DamagedError{Path: path, Problem: "the file is missing, but the directory holds a replica's data"}
	}
	return nil
}

// writeRecord replaces the identity file durably: whatever happens, the old
// record is there or the new one.
func writeRecord(dir string, r *record, hook func(step) error) error {
	b, err := encodeRecord(r)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, FileName)
	temporary := path + ".tmp"
	if err := hook(step{Name: "write", Phase: r.Phase}); err != nil {
		return err
	}
	if err := writeSynced(temporary, b); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	if err := hook(step{Name: "rename", Phase: r.Phase}); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	return hook(step{Name: "written", Phase: r.Phase})
}

func writeSynced(path string, b []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.Sync()
}

func syncDir(dir string) (err error) {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return d.Sync()
}

// serverIDBytes is the length of the random part of a ServerID.
const serverIDBytes = 16

// newServerID draws a name for a disk: the label, so that people can read logs,
// and 128 random bits, so that no two disks ever share it.
func newServerID(label string, random io.Reader) (string, error) {
	var b [serverIDBytes]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("draw a server id: %w", err)
	}
	return label + "." + hex.EncodeToString(b[:]), nil
}

// LabelOf returns the label in a ServerID, or "" if it is not one.
func LabelOf(serverID string) string {
	i := strings.LastIndexByte(serverID, '.')
	if i < 0 {
		return ""
	}
	if b, err := hex.DecodeString(serverID[i+1:]); err != nil || len(b) != serverIDBytes {
		return ""
	}
	return serverID[:i]
}
