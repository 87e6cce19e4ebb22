//! Messages of `loans.proto`. They are few, so they are written by hand and the build needs no `protoc`. For many messages, let
//! prost-build write this file.

use prost::Message;

#[derive(Clone, Copy, Message)]
pub struct QuoteRequest {
    #[prost(uint64, tag = "1")]
    pub amount: u64,
    #[prost(uint32, tag = "2")]
    pub rate: u32,
    #[prost(uint32, tag = "3")]
    pub months: u32,
}

#[derive(Clone, Copy, Message)]
pub struct QuoteResponse {
    #[prost(uint64, tag = "1")]
    pub payment: u64,
    #[prost(uint64, tag = "2")]
    pub interest: u64,
}

#[derive(Clone, Copy, Message)]
pub struct PlanRequest {
    #[prost(uint64, tag = "1")]
    pub amount: u64,
    #[prost(uint32, tag = "2")]
    pub rate: u32,
    #[prost(uint64, tag = "3")]
    pub payment: u64,
}

#[derive(Clone, Copy, Message)]
pub struct Month {
    #[prost(uint32, tag = "1")]
    pub number: u32,
    #[prost(uint64, tag = "2")]
    pub interest: u64,
    #[prost(uint64, tag = "3")]
    pub repayment: u64,
    #[prost(uint64, tag = "4")]
    pub rest: u64,
}
