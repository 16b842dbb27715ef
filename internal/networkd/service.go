package networkd

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	api "talos/api/network"
	"talos/internal/authz"
	"talos/internal/door"
	"talos/internal/layout"
	"talos/internal/linux/peercred"
	"talos/internal/networkd/rtnl"
	"talos/internal/resources/network"
)

// serve answers routerd until ctx ends.
func serve(ctx context.Context, socket string) error {
	listener, err := peercred.Listen(socket)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", socket, err)
	}
	srv := grpc.NewServer(grpc.Creds(peercred.Credentials(layout.RouterUID)),
		grpc.InitialWindowSize(door.Window), grpc.InitialConnWindowSize(door.Window),
		grpc.UnaryInterceptor(authz.UnaryServerInterceptor()), grpc.StreamInterceptor(authz.StreamServerInterceptor()))
	api.RegisterNetworkServiceServer(srv, &service{})
	stop := context.AfterFunc(ctx, srv.Stop)
	defer stop()
	return srv.Serve(listener)
}

// service answers from the kernel.
type service struct {
	api.UnimplementedNetworkServiceServer
}

// Routes lists the main table.
func (*service) Routes(context.Context, *emptypb.Empty) (*api.RoutesResponse, error) {
	links, routes, err := linksAnd(rtnl.Routes)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	out := &api.Routes{}
	for _, r := range routes {
		out.Routes = append(out.Routes, &api.Route{
			Interface: linkName(links, r.OutLinkIndex), Destination: destination(r), Gateway: text(r.Gateway.IsValid(), r.Gateway),
			Source: text(r.Src.IsValid(), r.Src), Metric: r.Priority, Scope: uint32(r.Scope), Family: api.AddressFamily(r.Family),
			Protocol: api.RouteProtocol(r.Protocol), Flags: uint32(r.Flags),
		})
	}
	return &api.RoutesResponse{Messages: []*api.Routes{out}}, nil
}

// Interfaces lists the links with their addresses.
func (*service) Interfaces(context.Context, *emptypb.Empty) (*api.InterfacesResponse, error) {
	links, addresses, err := linksAnd(rtnl.Addresses)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	out := &api.Interfaces{}
	for _, l := range links {
		item := &api.Interface{
			Index: l.Status.Index, Mtu: l.Status.MTU, Name: l.Name, Hardwareaddr: l.Status.HardwareAddr.String(), Flags: flags(l),
		}
		for _, a := range addresses {
			if a.LinkIndex == l.Status.Index {
				item.Ipaddress = append(item.Ipaddress, a.Prefix.String())
			}
		}
		out.Interfaces = append(out.Interfaces, item)
	}
	return &api.InterfacesResponse{Messages: []*api.Interfaces{out}}, nil
}

func text(valid bool, v fmt.Stringer) string {
	if !valid {
		return ""
	}
	return v.String()
}

func destination(r rtnl.Route) string {
	switch {
	case r.Dst.IsValid():
		return r.Dst.String()
	case r.Family == network.FamilyInet6:
		return "::/0"
	}
	return "0.0.0.0/0"
}

// flags picks the one flag that tells most: the field holds one.
func flags(l rtnl.Link) api.InterfaceFlags {
	switch {
	case l.Status.Type == network.LinkLoopback:
		return api.InterfaceFlags_FLAG_LOOPBACK
	case l.Up:
		return api.InterfaceFlags_FLAG_UP
	}
	return api.InterfaceFlags_FLAG_UNKNOWN
}
