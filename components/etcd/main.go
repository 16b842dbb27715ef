// Command etcd is upstream's etcd server and, when started as etcdutl, its tool
// for data folders and snapshots (restoring a cluster needs it). The tool is
// nearly free: it links the same storage code.
//
// The server's go.mod has replace directives, so that it cannot be installed
// directly and needs this main; etcdutl's main is not importable and is made
// here of its exported commands.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"go.etcd.io/etcd/etcdutl/v3/etcdutl"
	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	if filepath.Base(os.Args[0]) != "etcdutl" {
		etcdmain.Main(os.Args)
		return
	}
	if err := utl().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "etcdutl:", err)
		os.Exit(1)
	}
}

func utl() *cobra.Command {
	c := &cobra.Command{
		Use:           "etcdutl",
		Short:         "Work on etcd's files while no etcd uses them",
		SilenceErrors: true,
	}
	f := c.PersistentFlags()
	f.DurationVar(&etcdutl.FlockTimeout, "timeout", 10*time.Second, "how long to wait for the lock on the database; 0: for ever")
	f.StringVarP(&etcdutl.OutputFormat, "write-out", "w", "simple", "output: fields, json, protobuf, simple, table")
	c.AddCommand(
		etcdutl.NewDefragCommand(),
		etcdutl.NewSnapshotCommand(),
		etcdutl.NewHashKVCommand(),
		etcdutl.NewMigrateCommand(),
		etcdutl.NewVersionCommand(),
	)
	return c
}
