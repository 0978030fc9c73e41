package exporter

import (
	"ambit/l7"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

var (
	keyRPCMethod         = newWireKey(semconv.RPCMethodKey, tagAnyString)
	keyRPCMethodOriginal = newWireKey(semconv.RPCMethodOriginalKey, tagAnyString)
	keyRPCStatus         = newWireKey(semconv.RPCResponseStatusCodeKey, tagAnyString)
	keyMetadataRequestID = newWireKey(attribute.Key("rpc.request.metadata.x-request-id"), tagAnyArray)

	rpcSystem     = constantAttribute(semconv.RPCSystemNameGRPC)
	rpcSystemName = semconv.RPCSystemNameGRPC.Value.AsString()
)

// appendCall appends a call's name, which is its method's, and its status. Of gRPC-Web the HTTP method comes too: its
// status is most often out of sight, so that it is told as a request as well.
func (e *encoder) appendCall(b []byte, s *l7.Span, status string) []byte {
	method, original := s.RPCMethod()
	if !e.call.holds(method) {
		method = e.valid(method)
		wire := appendBytes(e.call.wire[:0], tagSpanName, callName(method))
		wire = append(wire, rpcSystem...)
		if method != "" {
			wire = appendStringAttribute(wire, keyRPCMethod, method)
		}
		e.call = memo{method, wire}
	}
	b = append(b, e.call.wire...)
	if original != "" {
		b = appendStringAttribute(b, keyRPCMethodOriginal, e.valid(original))
	}
	if status != "" {
		b = e.appendAgain(b, &e.callStatus, keyRPCStatus, status)
	}
	if s.RPC == l7.GRPCWeb {
		if s.Method != "" {
			b = e.appendAgain(b, &e.method, keyMethod, s.Method)
		}
		if s.MethodOriginal != "" {
			b = appendStringAttribute(b, keyMethodOriginal, e.valid(s.MethodOriginal))
		}
	}
	return b
}

// callName is the method, as the conventions have it, and else the system's name.
func callName(method string) string {
	if method == "" || method == "_OTHER" {
		return rpcSystemName
	}
	return method
}
