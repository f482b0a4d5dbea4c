"""Executors of type `grpc`: calls of gRPC services."""
