// Command etcd is upstream's etcd server, built from its pinned module. The
// module's own go.mod has replace directives, so that it cannot be installed
// directly and needs this main.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
