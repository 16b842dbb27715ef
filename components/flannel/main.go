// Command flanneld gives a Kubernetes node its share of the pod network and
// keeps the routes to the other nodes' shares. It is flannel v0.26.7 with the
// parts that a Talos node uses: leases from the Kubernetes API, rules in
// nftables, and the backends vxlan, host-gw, wireguard and alloc. Leaving out
// the others (the udp backend needs cgo) makes it a static binary.
//
// Flannel's own CNI plugin has no module of its own, and is only a translator:
// it turns the subnet file into a configuration of the bridge plugin each time
// that a pod starts. So flanneld writes that configuration itself, once, as
// soon as it knows the node's subnet (see conflist.go), and the node turns Ready
// without waiting for a second container.
//
// Flags have upstream's names and meaning; new are -cni-conf and -cni-ipam-dir.
// Upstream's -kube-subnet-mgr is accepted and always on. The environment names
// the node: NODE_NAME, or POD_NAME and POD_NAMESPACE.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/alloc"     // registers "alloc"
	_ "github.com/flannel-io/flannel/pkg/backend/hostgw"    // registers "host-gw"
	_ "github.com/flannel-io/flannel/pkg/backend/vxlan"     // registers "vxlan"
	_ "github.com/flannel-io/flannel/pkg/backend/wireguard" // registers "wireguard"
	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/subnet"
	"github.com/flannel-io/flannel/pkg/subnet/kube"
	"github.com/flannel-io/flannel/pkg/trafficmngr/nftables"
	"github.com/flannel-io/flannel/pkg/version"
	"k8s.io/klog/v2"
)

// options are the command line.
type options struct {
	apiURL       string
	kubeconfig   string
	prefix       string
	netConf      string
	subnetFile   string
	cniConf      string
	ipamDir      string
	publicIP     string
	publicIPv6   string
	canReach     string
	ifaces       list
	ifaceRegexes list
	healthzIP    string
	healthzPort  int
	ipMasq       bool
	forwardRules bool
	setCondition bool
	version      bool
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return fmt.Sprint(*l) }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func parse(args []string) (*options, error) {
	o := new(options)
	f := flag.NewFlagSet("flanneld", flag.ContinueOnError)
	klog.InitFlags(f)
	f.StringVar(&o.apiURL, "kube-api-url", "", "Kubernetes API server; default: the one of the pod")
	f.StringVar(&o.kubeconfig, "kubeconfig-file", "", "kubeconfig; default: the pod's service account")
	f.StringVar(&o.prefix, "kube-annotation-prefix", "flannel.alpha.coreos.com", "prefix of the node annotations")
	f.StringVar(&o.netConf, "net-config-path", "/etc/kube-flannel/net-conf.json", "network configuration")
	f.StringVar(&o.subnetFile, "subnet-file", "/run/flannel/subnet.env", "where to write the node's subnet")
	f.StringVar(&o.cniConf, "cni-conf", "/etc/cni/net.d/10-flannel.conflist", "where to write the CNI configuration; empty: nowhere")
	f.StringVar(&o.ipamDir, "cni-ipam-dir", "/run/cni/ipam", "where the host-local plugin keeps its leases; on tmpfs, so that none outlives a reboot")
	f.StringVar(&o.publicIP, "public-ip", "", "this node's address for other nodes")
	f.StringVar(&o.publicIPv6, "public-ipv6", "", "this node's IPv6 address for other nodes")
	f.StringVar(&o.canReach, "iface-can-reach", "", "use the link with the route to this address")
	f.Var(&o.ifaces, "iface", "link between nodes, by name or address; may be repeated, first match wins")
	f.Var(&o.ifaceRegexes, "iface-regex", "link between nodes, by pattern; may be repeated, tried after -iface")
	f.StringVar(&o.healthzIP, "healthz-ip", "0.0.0.0", "address of /healthz")
	f.IntVar(&o.healthzPort, "healthz-port", 0, "port of /healthz; 0: off")
	f.BoolVar(&o.ipMasq, "ip-masq", false, "masquerade what pods send outside of the pod network")
	f.BoolVar(&o.forwardRules, "iptables-forward-rules", true, "accept forwarded pod traffic (in nftables, in spite of the flag's name)")
	f.BoolVar(&o.setCondition, "set-node-network-unavailable", true, "set the node's condition NetworkUnavailable to false when ready")
	f.BoolVar(&o.version, "version", false, "print the version and exit")
	f.Bool("kube-subnet-mgr", true, "always on; accepted for upstream's manifests")
	return o, f.Parse(args)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "flanneld:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.version {
		fmt.Println(version.Version)
		return nil
	}

	ctx, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup // the backends' and rule keepers' goroutines
	defer tasks.Wait()
	defer cancel()

	if o.healthzPort > 0 {
		if err := serveHealth(ctx, &tasks, net.JoinHostPort(o.healthzIP, strconv.Itoa(o.healthzPort))); err != nil {
			return err
		}
	}
	leases, err := kube.NewSubnetManager(ctx, o.apiURL, o.kubeconfig, o.prefix, o.netConf, o.setCondition)
	if err != nil {
		return err
	}
	conf, err := leases.GetNetworkConfig(ctx)
	if err != nil {
		return fmt.Errorf("network configuration: %w", err)
	}
	network, err := register(ctx, &tasks, o, leases, conf)
	if err != nil {
		return err
	}
	if err := setRules(ctx, &tasks, o, conf, network); err != nil {
		return err
	}

	lease := network.Lease()
	if err := leases.HandleSubnetFile(o.subnetFile, conf, o.ipMasq, lease.Subnet, lease.IPv6Subnet, network.MTU()); err != nil {
		return fmt.Errorf("subnet file: %w", err)
	}
	if o.cniConf != "" {
		if err := writeConflist(o.subnetFile, o.cniConf, o.ipamDir); err != nil {
			return err
		}
		tasks.Go(func() { followSubnet(ctx, o.subnetFile, o.cniConf, o.ipamDir) })
	}
	tasks.Go(func() { network.Run(ctx) })
	if err := leases.CompleteLease(ctx, lease, &tasks); err != nil {
		return fmt.Errorf("node condition: %w", err)
	}
	<-ctx.Done()
	return nil
}

// register takes this node's lease. A node that has just joined has no pod
// subnet yet; that is worth waiting for, not worth a restart of the container.
func register(ctx context.Context, tasks *sync.WaitGroup, o *options, leases subnet.Manager, conf *subnet.Config) (backend.Network, error) {
	link, err := findLink(ctx, o, leases, conf)
	if err != nil {
		return nil, err
	}
	b, err := backend.NewManager(ctx, leases, link).GetBackend(conf.BackendType)
	if err != nil {
		return nil, fmt.Errorf("backend %q: %w", conf.BackendType, err)
	}
	const tries, pause = 120, 250 * time.Millisecond
	for try := 1; ; try++ {
		network, err := b.RegisterNetwork(ctx, tasks, conf)
		if err == nil {
			return network, nil
		}
		if try == tries || ctx.Err() != nil {
			return nil, fmt.Errorf("register with backend %q: %w", conf.BackendType, err)
		}
		klog.Infof("not registered yet: %v", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// findLink returns the link that carries traffic between nodes.
func findLink(ctx context.Context, o *options, leases subnet.Manager, conf *subnet.Config) (*backend.ExternalInterface, error) {
	family, err := ipmatch.GetIPFamily(conf.EnableIPv4, conf.EnableIPv6)
	if err != nil {
		return nil, err
	}
	public := ipmatch.PublicIPOpts{PublicIP: o.publicIP, PublicIPv6: o.publicIPv6}
	if v4, v6 := leases.GetStoredPublicIP(ctx); v4 != "" || v6 != "" {
		public = ipmatch.PublicIPOpts{PublicIP: v4, PublicIPv6: v6}
	}

	if len(o.ifaces) == 0 && len(o.ifaceRegexes) == 0 && o.canReach == "" {
		name := public.PublicIP
		if name == "" {
			name = public.PublicIPv6
		}
		return ipmatch.LookupExtIface(name, "", "", family, public)
	}
	var errs []error
	look := func(name, regex, reach string) *backend.ExternalInterface {
		link, err := ipmatch.LookupExtIface(name, regex, reach, family, public)
		errs = append(errs, err)
		return link
	}
	for _, name := range o.ifaces {
		if link := look(name, "", ""); link != nil {
			return link, nil
		}
	}
	for _, regex := range o.ifaceRegexes {
		if link := look("", regex, ""); link != nil {
			return link, nil
		}
	}
	if o.canReach != "" {
		if link := look("", "", o.canReach); link != nil {
			return link, nil
		}
	}
	return nil, fmt.Errorf("no link between nodes matches: %w", errors.Join(errs...))
}

// setRules installs flannel's nftables; its keepers end with ctx and take the
// tables away.
func setRules(ctx context.Context, tasks *sync.WaitGroup, o *options, conf *subnet.Config, network backend.Network) error {
	const unused = 0 // the nftables keeper does not poll
	rules := new(nftables.NFTablesManager)
	if err := rules.Init(ctx, tasks); err != nil {
		return err
	}
	if o.ipMasq {
		// The previous values matter to the iptables keeper only: a chain of
		// nftables is replaced as a whole.
		err := rules.SetupAndEnsureMasqRules(ctx, conf.Network, ip.IP4Net{}, ip.IP4Net{},
			conf.IPv6Network, ip.IP6Net{}, ip.IP6Net{}, network.Lease(), unused)
		if err != nil {
			return err
		}
	}
	if o.forwardRules {
		rules.SetupAndEnsureForwardRules(ctx, conf.Network, conf.IPv6Network, unused)
	}
	return nil
}

func serveHealth(ctx context.Context, tasks *sync.WaitGroup, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "flanneld is running")
	})
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	tasks.Go(func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			klog.Errorf("healthz: %v", err)
		}
	})
	context.AfterFunc(ctx, func() { s.Close() })
	return nil
}
