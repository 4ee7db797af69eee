package pebblestore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Pebble takes a record of its manifest that it can't read for the torn end of the
// file, and goes on without what follows. After a loss of power that is right. After
// rot it is not: a table that was flushed is forgotten, the log that it was made of
// is gone, and younger logs are replayed on top of the hole. So each manifest has a
// seal, which tells how much of it had been synced, and the checksum of that.
//
// The seals of a database are in the file SEAL, in two slots. The newest seal of the
// manifest in force is never written over: a write that is cut off leaves it, and so
// does any number of new manifests that never came into force, because the process
// ended each time before Pebble named them. A slot holds, in big-endian order:
//
//	magic    u32  "SHMS"
//	format   u8   1
//	sequence u64  rises with each write; odd in the second slot
//	length   u64  how many bytes of the manifest are sealed
//	sum      u32  CRC32C of these bytes
//	name     u16 length, bytes
//	crc      u32  CRC32C of everything before it
//
// A seal is written after the sync of the manifest, before Pebble hears of it, and so
// before it names a new manifest or deletes anything.
const (
	sealName       = "SEAL"
	sealMagic      = "SHMS"
	sealFormat     = 1
	sealSlotBytes  = 4 << 10
	sealFixedBytes = 4 + 1 + 8 + 8 + 4 + 2
	manifestPrefix = "MANIFEST-"
)

type manifestSeal struct {
	sequence uint64
	length   uint64
	sum      uint32
	name     string
}

func (s manifestSeal) encode() []byte {
	b := append(make([]byte, 0, sealFixedBytes+len(s.name)+4), sealMagic...)
	b = append(b, sealFormat)
	b = binary.BigEndian.AppendUint64(b, s.sequence)
	b = binary.BigEndian.AppendUint64(b, s.length)
	b = binary.BigEndian.AppendUint32(b, s.sum)
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.name)))
	b = append(b, s.name...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeSeal reads the seal at the start of b.
func decodeSeal(b []byte) (s manifestSeal, ok bool) {
	if len(b) < sealFixedBytes+4 || string(b[:4]) != sealMagic || b[4] != sealFormat {
		return s, false
	}
	end := sealFixedBytes + int(binary.BigEndian.Uint16(b[sealFixedBytes-2:]))
	if end+4 > len(b) || crc32.Checksum(b[:end], castagnoli) != binary.BigEndian.Uint32(b[end:]) {
		return s, false
	}
	return manifestSeal{
		sequence: binary.BigEndian.Uint64(b[5:]),
		length:   binary.BigEndian.Uint64(b[13:]),
		sum:      binary.BigEndian.Uint32(b[21:]),
		name:     string(b[sealFixedBytes:end]),
	}, true
}

// readSeals returns the seals that can be read, the newest first.
func readSeals(fsys vfs.FS, path string) (seals []manifestSeal, err error) {
	file, err := fsys.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, 2*sealSlotBytes))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	content = append(content, make([]byte, 2*sealSlotBytes-len(content))...)
	for i := range uint64(2) {
		if s, ok := decodeSeal(content[i*sealSlotBytes : (i+1)*sealSlotBytes]); ok && s.sequence%2 == i {
			seals = append(seals, s)
		}
	}
	if len(seals) == 2 && seals[0].sequence < seals[1].sequence {
		seals[0], seals[1] = seals[1], seals[0]
	}
	return seals, nil
}

// writeSeal adds a seal to those of its directory, durably.
func writeSeal(fsys vfs.FS, dir string, s manifestSeal) error {
	path := fsys.PathJoin(dir, sealName)
	seals, err := readSeals(fsys, path)
	if err != nil {
		return err
	}
	if len(seals) == 0 {
		s.sequence = 2
		if err := writeFile(fsys, path, append(s.encode(), make([]byte, 2*sealSlotBytes-len(s.encode()))...)); err != nil {
			return err
		}
		return syncDir(fsys, dir)
	}
	if s.sequence, err = nextSequence(fsys, dir, seals[0]); err != nil {
		return err
	}
	file, err := fsys.OpenReadWrite(path, writeCategory)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(s.encode(), int64(s.sequence%2*sealSlotBytes))
	if err == nil {
		err = file.SyncData()
	}
	return errors.Join(err, file.Close())
}

// nextSequence is the number, and with it the slot, of the seal behind the newest: the
// other slot's, unless the newest is of a manifest that never came into force.
func nextSequence(fsys vfs.FS, dir string, newest manifestSeal) (uint64, error) {
	db, err := pebble.Peek(dir, fsys)
	if err != nil {
		return 0, err
	}
	if db.Exists && newest.name != fsys.PathBase(db.ManifestFilename) {
		return newest.sequence + 2, nil
	}
	return newest.sequence + 1, nil
}

// checkManifest compares the manifest that a database uses with its seal.
func checkManifest(fsys vfs.FS, dir string) error {
	db, err := pebble.Peek(dir, fsys)
	if err != nil || !db.Exists {
		return err
	}
	seals, err := readSeals(fsys, fsys.PathJoin(dir, sealName))
	if err != nil {
		return err
	}
	for _, s := range seals {
		if s.name != fsys.PathBase(db.ManifestFilename) {
			continue
		}
		file, err := fsys.Open(db.ManifestFilename)
		if err != nil {
			return err
		}
		defer file.Close()
		hash := crc32.New(castagnoli)
		n, err := io.Copy(hash, io.LimitReader(file, int64(s.length)))
		switch {
		case err != nil:
			return fmt.Errorf("read %s: %w", db.ManifestFilename, err)
		case uint64(n) != s.length || hash.Sum32() != s.sum:
			return fmt.Errorf("%w: %s is not what was written", ErrDamaged, db.ManifestFilename)
		}
		return nil
	}
	return fmt.Errorf("%w: %s has no seal", ErrDamaged, db.ManifestFilename)
}

// A manifestFile is a manifest that is being written.
type manifestFile struct {
	vfs.File
	fs       vfs.FS
	name     string
	length   uint64
	sum      uint32
	unsealed bool
	named    bool // its name is durable
}

// Write implements vfs.File. The file may change p, so that its checksum is made
// first. After a part of it was written, Pebble stops.
func (f *manifestFile) Write(p []byte) (int, error) {
	sum := crc32.Update(f.sum, castagnoli, p)
	n, err := f.File.Write(p)
	if err != nil {
		return n, err
	}
	f.length, f.sum, f.unsealed = f.length+uint64(n), sum, true
	return n, nil
}

// Sync implements vfs.File.
func (f *manifestFile) Sync() error {
	if err := f.File.Sync(); err != nil || !f.unsealed {
		return err
	}
	f.unsealed = false
	dir := f.fs.PathDir(f.name)
	if !f.named {
		// Pebble syncs the directory only with the marker that names the manifest in it:
		// a loss of power could leave the marker and take the manifest.
		if err := syncDir(f.fs, dir); err != nil {
			return err
		}
		f.named = true
	}
	return writeSeal(f.fs, dir, manifestSeal{length: f.length, sum: f.sum, name: f.fs.PathBase(f.name)})
}

// SyncData implements vfs.File.
func (f *manifestFile) SyncData() error { return f.Sync() }

// Close implements vfs.File. That of a checkpoint was never synced.
func (f *manifestFile) Close() error {
	var err error
	if f.unsealed {
		err = f.Sync()
	}
	return errors.Join(err, f.File.Close())
}
