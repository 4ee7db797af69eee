package clerk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/shoalkv/shoal/clerk/route"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// cacheBytesMax bounds the cache file that is read: a config of the largest
// size, written out, is far below it.
const cacheBytesMax = 64 << 20

// loadCache starts from the cache file: a QueryReply as protobuf JSON. A file
// that is not there is no error; one of another cluster is not used.
func (c *Clerk) loadCache() error {
	f, err := os.Open(c.config.CacheFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, cacheBytesMax))
	if err != nil {
		return err
	}
	var cached ctrlpb.QueryReply
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, &cached); err != nil {
		return fmt.Errorf("%s is not a cached configuration: %w", c.config.CacheFile, err)
	}
	config, err := ctrlpb.ToConfig(cached.GetConfig())
	if err != nil {
		return err
	}
	if id, ok := shardcfg.To128[shardcfg.ClusterID](cached.GetCluster()); !ok || c.config.Cluster != (shardcfg.ClusterID{}) && id != c.config.Cluster {
		return fmt.Errorf("it is of cluster %x, not %s", cached.GetCluster(), c.config.Cluster)
	}
	if err := c.table.belongs(cached.GetCluster()); err != nil {
		return err
	}
	c.table.change(func(t *route.Table) { t.LearnConfig(config) })
	return nil
}

// saveCache replaces the cache file. It is a cache: it is not synced, and what a
// crash leaves of it is checked when it is read.
func (c *Clerk) saveCache(config *shardcfg.Config) error {
	raw, err := protojson.Marshal(&ctrlpb.QueryReply{Cluster: c.table.clusterBytes(), Config: ctrlpb.FromConfig(config)})
	if err != nil {
		return err
	}
	// Beside the file, also where its name has no directory: a rename does not
	// leave a file system.
	f, err := os.CreateTemp(filepath.Dir(c.config.CacheFile), filepath.Base(c.config.CacheFile)+".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), c.config.CacheFile)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
