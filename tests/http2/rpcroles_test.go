package http2

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// serveRPC is the server of gRPC's interoperability tests, by grpc-go: a port, and the file that it logs to. Beside them it
// has the service ambit.Flow with any method, whose name says what it answers.
func serveRPC(args []string) error {
	file, err := os.OpenFile(args[1], os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "[::]:"+args[0])
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.StatsHandler(newRPCLog(file)), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		if !strings.HasPrefix(method, flowService) {
			return status.Errorf(codes.Unimplemented, "no such method %s", method)
		}
		var message grpc_testing.Empty
		if err := stream.RecvMsg(&message); err != nil {
			return err
		}
		if code := flowCode(method); code != codes.OK {
			return status.Errorf(code, "as %s wants it", method)
		}
		return stream.SendMsg(&message)
	}))
	grpc_testing.RegisterTestServiceServer(server, interop.NewTestServer())
	return server.Serve(listener)
}

// interopCases are the test cases of gRPC's interop-test-descriptions.md that need no TLS, in the order in which each
// client does them over one connection.
var interopCases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream", "custom_metadata",
	"status_code_and_message", "special_status_message", "unimplemented_method", "unimplemented_service",
	"cancel_after_begin", "cancel_after_first_response", "timeout_on_sleeping_server",
}

// callRPC is grpc-go's own client for the interoperability tests: an address. It checks the answers itself, and ends when
// its standard input does.
func callRPC(args []string) error {
	conn, err := grpc.NewClient("passthrough:///"+args[0], grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStatsHandler(newRPCLog(os.Stdout)), grpc.WithUserAgent("rpc-call/1"))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx := context.Background()
	client := grpc_testing.NewTestServiceClient(conn)
	cases := map[string]func(context.Context, grpc_testing.TestServiceClient, ...grpc.CallOption){
		"empty_unary": interop.DoEmptyUnaryCall, "large_unary": interop.DoLargeUnaryCall,
		"client_streaming": interop.DoClientStreaming, "server_streaming": interop.DoServerStreaming,
		"ping_pong": interop.DoPingPong, "empty_stream": interop.DoEmptyStream, "custom_metadata": interop.DoCustomMetadata,
		"status_code_and_message": interop.DoStatusCodeAndMessage, "special_status_message": interop.DoSpecialStatusMessage,
		"cancel_after_begin": interop.DoCancelAfterBegin, "cancel_after_first_response": interop.DoCancelAfterFirstResponse,
		"timeout_on_sleeping_server": interop.DoTimeoutOnSleepingServer,
		"unimplemented_method": func(ctx context.Context, _ grpc_testing.TestServiceClient, _ ...grpc.CallOption) {
			interop.DoUnimplementedMethod(ctx, conn)
		},
		"unimplemented_service": func(ctx context.Context, _ grpc_testing.TestServiceClient, _ ...grpc.CallOption) {
			interop.DoUnimplementedService(ctx, grpc_testing.NewUnimplementedServiceClient(conn))
		},
	}
	for _, name := range interopCases {
		do := cases[name]
		if do == nil {
			return fmt.Errorf("there is no case %s", name)
		}
		do(ctx, client)
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
