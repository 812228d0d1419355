//! Sinks that the application installs for streams of the peer when they start.

use super::peers::{Pair, pair, pair_with, settings};
use super::skip::lacks_patch;
use crate::executors::run;
use msquic_async::ConnectionError;
use msquic_async::StreamStartError;
use msquic_async::{
    Connection, ReadError, ReceiveEnd, ReceiveSink, SinkStream, StreamLimits, StreamType,
    WriteStream,
};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

/// The calls that the sinks of a connection received.
#[derive(Default)]
struct Log {
    events: Mutex<Vec<Event>>,
    added: Notify,
}

#[derive(Debug, Clone, PartialEq)]
enum Event {
    Started(u64),
    Bytes(u64, Vec<u8>),
    Ended(u64, ReceiveEnd),
    Dropped(u64),
}

impl Log {
    fn add(&self, event: Event) {
        self.events.lock().unwrap().push(event);
        self.added.notify_one();
    }

    /// Waits until `done` is true of the events.
    async fn wait(&self, done: impl Fn(&[Event]) -> bool) -> Vec<Event> {
        loop {
            let mut added = pin!(self.added.notified());
            added.as_mut().enable();
            let events = self.events();
            if done(&events) {
                return events;
            }
            added.await;
        }
    }

    fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    async fn dropped(&self, count: usize) -> Vec<Event> {
        let is_dropped = |event: &&Event| matches!(event, Event::Dropped(_));
        self.wait(|events| events.iter().filter(is_dropped).count() == count).await
    }

    fn started(&self) -> Vec<u64> {
        let id = |event: &Event| if let Event::Started(id) = event { Some(*id) } else { None };
        self.events.lock().unwrap().iter().filter_map(id).collect()
    }
}

/// Logs its calls, takes at most `most` bytes at a time, and stops the stream at a `!`.
struct LogSink {
    stream: SinkStream,
    log: Arc<Log>,
    most: usize,
}

impl ReceiveSink for LogSink {
    fn receive(&mut self, data: &[u8]) -> usize {
        let taken = &data[..data.len().min(self.most)];
        self.log.add(Event::Bytes(self.stream.id(), taken.to_vec()));
        if taken.contains(&b'!') {
            self.stream.stop(7);
        }
        taken.len()
    }

    fn end(&mut self, end: ReceiveEnd) {
        self.log.add(Event::Ended(self.stream.id(), end));
    }
}

impl Drop for LogSink {
    fn drop(&mut self) {
        self.log.add(Event::Dropped(self.stream.id()));
    }
}

/// Installs sinks that take all bytes for the streams of the peer, and returns their log.
fn install(connection: &Connection) -> Arc<Log> {
    let log = Arc::new(Log::default());
    let logged = log.clone();
    connection.set_inbound_uni_sinks(move |stream| {
        logged.add(Event::Started(stream.id()));
        Box::new(LogSink { stream, log: logged.clone(), most: usize::MAX })
    });
    log
}

async fn open(connection: &Connection) -> WriteStream {
    let stream = connection.open_outbound_stream(StreamType::Unidirectional, false).await.unwrap();
    stream.split().1.unwrap()
}

/// Sends `data` on a stream; it is acknowledged when this returns.
async fn send(connection: &Connection, data: &[u8]) {
    let mut stream = open(connection).await;
    stream.write_all(data).await.unwrap();
    stream.finish_write().await.unwrap();
}

/// More than may be open at once.
const STREAMS: u8 = 20;

#[test]
fn streams_get_their_sinks_in_the_order_of_their_starts() {
    run(async || {
        let Pair { registration, listener, client, server } = pair().await;
        let mut log = Arc::default();
        for number in 0..STREAMS {
            if number == 3 {
                log = install(&server);
            }
            send(&client, &[number; 3]).await;
        }
        let events = log.dropped(STREAMS.into()).await;
        let ids: Vec<_> = (0..STREAMS).map(|number| 2 + 4 * u64::from(number)).collect();
        assert_eq!(log.started(), ids);
        for (number, id) in (0..STREAMS).zip(ids) {
            let position = |wanted| events.iter().position(|event| *event == wanted);
            let received = position(Event::Bytes(id, vec![number; 3])).unwrap();
            let ended = position(Event::Ended(id, ReceiveEnd::Finished)).unwrap();
            assert!(received < ended, "{events:?}");
        }
        // None is left to be accepted.
        let accept = server.accept_inbound_uni_stream();
        client.shutdown(3, "");
        let end = accept.await.map(drop);
        assert!(matches!(end, Err(ConnectionError::ClosedByPeer { code: 3, .. })), "{end:?}");
        drop((client, server, listener));
        registration.wait_idle().await;
        assert_eq!(Arc::strong_count(&log), 1, "the factory and its sinks are dropped");
    });
}

#[test]
fn a_sink_stops_its_stream_itself() {
    run(async || {
        let pair = pair().await;
        let log = install(&pair.server);
        let mut stream = open(&pair.client).await;
        stream.write_all(b"ok").await.unwrap();
        stream.write_all(b"no!").await.unwrap();
        assert_eq!(stream.stopped().await, Ok(Some(7)));
        let events = log.dropped(1).await;
        let end = ReceiveEnd::Failed(ReadError::Closed);
        assert_eq!(events[events.len() - 2..], [Event::Ended(2, end), Event::Dropped(2)]);
        send(&pair.client, b"next").await;
        log.dropped(2).await;
    });
}

#[test]
fn a_paused_sink_is_resumed_or_dropped_after_the_end_of_the_connection() {
    run(async || {
        let Pair { registration, listener, client, server } = pair().await;
        send(&client, b"abc").await;
        send(&client, b"de").await;
        client.shutdown(3, "");
        server.watch_shutdown().await;
        let log = Arc::new(Log::default());
        let handles = Arc::new(Mutex::new(Vec::new()));
        let (logged, kept) = (log.clone(), handles.clone());
        server.set_inbound_uni_sinks(move |stream| {
            kept.lock().unwrap().push(stream.clone());
            Box::new(LogSink { stream, log: logged.clone(), most: 1 })
        });
        let stream = handles.lock().unwrap()[0].clone();
        let mut expected = vec![Event::Bytes(2, b"a".to_vec()), Event::Bytes(6, b"d".to_vec())];
        assert_eq!(log.events(), expected);
        stream.resume();
        stream.resume();
        expected.extend([
            Event::Bytes(2, b"b".to_vec()),
            Event::Bytes(2, b"c".to_vec()),
            Event::Ended(2, ReceiveEnd::Finished),
            Event::Dropped(2),
        ]);
        assert_eq!(log.events(), expected);
        stream.resume();
        stream.stop(1);
        registration.shutdown(0);
        registration.wait_idle().await; // not kept open by the sink that waits
        drop(server);
        let stopped = ReceiveEnd::Failed(ReadError::Closed);
        expected.extend([Event::Ended(6, stopped), Event::Dropped(6)]);
        assert_eq!(log.events(), expected);
        assert_eq!(Arc::strong_count(&log), 1);
        drop((client, listener));
    });
}

#[test]
fn sinks_do_not_keep_their_connection_open() {
    run(async || {
        let Pair { registration, listener, client, server } = pair().await;
        let log = install(&server);
        let mut stream = open(&client).await;
        stream.write_all(b"unfinished").await.unwrap();
        log.wait(|events| events.len() == 2).await;
        drop(server);
        let end = client.watch_shutdown().await;
        assert!(matches!(end, ConnectionError::ClosedByPeer { code: 0, .. }), "{end:?}");
        let events = log.dropped(1).await;
        assert!(matches!(events[2], Event::Ended(2, ReceiveEnd::Failed(_))), "{events:?}");
        drop((stream, client, listener));
        registration.wait_idle().await;
        assert_eq!(Arc::strong_count(&log), 1, "the factory and its sinks are dropped");
    });
}

/// Uses its connection, which it should not hold.
struct Entangled(Connection, SinkStream);

impl ReceiveSink for Entangled {
    fn receive(&mut self, data: &[u8]) -> usize {
        self.1.resume();
        assert!(self.0.peer_identity().is_some());
        data.len()
    }

    fn end(&mut self, _: ReceiveEnd) {
        self.1.stop(1);
        drop(self.0.close_reason());
    }
}

#[test]
fn factories_and_sinks_run_without_a_lock_and_are_dropped_with_the_connection() {
    run(async || {
        let Pair { registration, listener, client, server } = pair().await;
        let token = Arc::new(());
        let (held, connection) = (token.clone(), server.clone());
        server.set_inbound_uni_sinks(move |stream| {
            let _ = (&held, connection.close_reason(), connection.max_datagram_size());
            stream.resume();
            Box::new(Entangled(connection.clone(), stream))
        });
        send(&client, b"1").await;
        let mut unfinished = open(&client).await;
        unfinished.write_all(b"2").await.unwrap();
        drop(server); // the factory holds another handle
        send(&client, b"3").await;
        client.shutdown(0, "");
        drop((unfinished, client, listener));
        registration.wait_idle().await;
        assert_eq!(Arc::strong_count(&token), 1);
    });
}

#[test]
fn a_stream_whose_sink_cannot_be_created_is_stopped() {
    run(async || {
        let pair = pair().await;
        let log = Arc::new(Log::default());
        let logged = log.clone();
        pair.server.set_inbound_uni_sinks(move |stream| {
            assert_ne!(stream.id(), 2, "a panic of the application");
            Box::new(LogSink { stream, log: logged.clone(), most: usize::MAX })
        });
        let mut stream = open(&pair.client).await;
        stream.write_all(b"x").await.unwrap();
        assert_eq!(stream.stopped().await, Ok(Some(0)));
        send(&pair.client, b"next").await;
        log.dropped(1).await;
    });
}

/// Installs sinks that take `most` bytes at a time, and returns their log and their streams.
fn install_slow(connection: &Connection, most: usize) -> (Arc<Log>, Arc<Mutex<Vec<SinkStream>>>) {
    let (log, streams) = (Arc::new(Log::default()), Arc::new(Mutex::new(Vec::new())));
    let (logged, started) = (log.clone(), streams.clone());
    connection.set_inbound_uni_sinks(move |stream| {
        started.lock().unwrap().push(stream.clone());
        Box::new(LogSink { stream, log: logged.clone(), most })
    });
    (log, streams)
}

/// Returns once the server has processed what the client did before.
async fn round_trip(client: &Connection, server: &Connection) {
    let mut asks = client.open_outbound_stream(StreamType::Bidirectional, false).await.unwrap();
    asks.write_all(b"?").await.unwrap();
    let mut answers = server.accept_inbound_stream().await.unwrap();
    answers.write_all(b"!").await.unwrap();
    asks.read_chunk().await.unwrap();
}

#[test]
fn a_stream_uses_the_limit_until_its_sink_has_the_end() {
    if lacks_patch("I6180") {
        return; // it lends no memory of several receives
    }
    run(async || {
        let settings = settings().peer_uni_streams(2).zero_copy_receive(true);
        let Pair { registration, listener, client, server } =
            pair_with(settings, StreamLimits::default()).await;
        let (log, streams) = install_slow(&server, 1);
        for _ in 0..2 {
            let mut stream = open(&client).await;
            stream.write_all(b"abcdef").await.unwrap();
            let first = Event::Bytes(stream.id().unwrap(), b"a".to_vec());
            log.wait(|events| events.contains(&first)).await;
            stream.abort_write(7).unwrap();
        }
        round_trip(&client, &server).await;
        let opened = client.open_outbound_stream(StreamType::Unidirectional, true).await;
        assert_eq!(opened.map(drop), Err(StreamStartError::LimitReached));
        let stream = streams.lock().unwrap()[0].clone();
        b"bcdef".iter().for_each(|_| stream.resume());
        log.dropped(1).await;
        open(&client).await;
        drop((client, server, listener));
        registration.wait_idle().await;
    });
}

#[test]
fn a_paused_sink_is_offered_nothing_until_it_is_resumed() {
    if lacks_patch("I6180") {
        return; // the bytes behind those that are lent arrive later
    }
    for resets in [false, true] {
        run(async || {
            let Pair { registration, listener, client, server } =
                pair_with(settings().zero_copy_receive(true), StreamLimits::default()).await;
            let (log, streams) = install_slow(&server, 1);
            let resume = |index: usize| {
                let stream: SinkStream = streams.lock().unwrap()[index].clone();
                stream.resume();
            };
            let mut stream = open(&client).await;
            stream.write_all(b"ab").await.unwrap();
            let mut expected = vec![Event::Bytes(2, b"a".to_vec())];
            log.wait(|events| !events.is_empty()).await;
            let end = if resets {
                stream.abort_write(7).unwrap();
                ReceiveEnd::Failed(ReadError::Reset(7))
            } else {
                stream.write_chunk(&"c".into(), true).await.unwrap();
                stream.finish_write().await.unwrap();
                ReceiveEnd::Finished
            };
            round_trip(&client, &server).await;
            assert_eq!(log.events(), expected);
            resume(0);
            expected.push(Event::Bytes(2, b"b".to_vec()));
            if !resets {
                expected.push(Event::Bytes(2, b"c".to_vec())); // it took all of the first offer
            }
            expected.extend([Event::Ended(2, end), Event::Dropped(2)]);
            assert_eq!(log.events(), expected);

            // The end of the connection does not resume it either.
            let mut stream = open(&client).await;
            stream.write_all(b"cd").await.unwrap();
            expected.push(Event::Bytes(6, b"c".to_vec()));
            log.wait(|events| events.len() == expected.len()).await;
            client.shutdown(3, "");
            server.watch_shutdown().await;
            drop((stream, client, listener));
            registration.wait_idle().await;
            assert_eq!(log.events(), expected);
            resume(1);
            let events = log.events();
            assert_eq!(events[expected.len()], Event::Bytes(6, b"d".to_vec()));
            assert!(matches!(events[expected.len() + 1], Event::Ended(6, ReceiveEnd::Failed(_))));
            drop(server);
        });
    }
}

/// More bytes than the queue of a stream holds, fewer than its window.
const LONG: usize = 400 * 1024;

async fn pair_with_window() -> Pair {
    pair_with(
        settings().stream_receive_window(1024 * 1024).send_buffering(false),
        StreamLimits::default(),
    )
    .await
}

#[test]
fn data_that_a_full_sink_left_arrives_after_either_side_has_closed() {
    async fn close(is_local: bool) {
        let Pair { registration, listener, client, server } = pair_with_window().await;
        let (log, streams) = install_slow(&server, 1000);
        send(&client, &[1; LONG]).await; // acknowledged
        if is_local {
            server.shutdown(3, "a reason")
        } else {
            client.shutdown(3, "")
        }
        let end = server.watch_shutdown().await;
        let is_of_peer = matches!(end, ConnectionError::ClosedByPeer { code: 3, .. });
        assert_eq!(is_of_peer, !is_local, "{end:?}");
        let stream = streams.lock().unwrap().pop().unwrap();
        for _ in 0..LONG / 1000 + 1 {
            stream.resume();
        }
        let is_end = |event: &Event| matches!(event, Event::Ended(_, _));
        let events = log.wait(|events| events.iter().any(is_end)).await;
        let bytes = |event: &Event| if let Event::Bytes(_, it) = event { it.len() } else { 0 };
        assert_eq!(events.iter().map(bytes).sum::<usize>(), LONG);
        drop((stream, client, server, listener));
        registration.wait_idle().await;
    }
    if !lacks_patch("N60") {
        run(async || {
            close(false).await;
            close(true).await;
        });
    }
}

#[test]
fn a_stream_is_read_whole_although_it_was_accepted_after_the_end() {
    if lacks_patch("N60") {
        return;
    }
    run(async || {
        let Pair { registration, listener, client, server } = pair_with_window().await;
        let mut stream = open(&client).await;
        stream.write_all(&[1; LONG]).await.unwrap();
        WriteStream::flush(&stream).await.unwrap(); // acknowledged
        client.shutdown(3, "");
        server.watch_shutdown().await;
        let received = server.accept_inbound_uni_stream().await.unwrap();
        let (mut count, end) =
            (0, ConnectionError::ClosedByPeer { code: 3, reason: String::new() });
        let error = loop {
            match received.read_chunk().await {
                Ok(chunk) => count += chunk.unwrap().len(),
                Err(error) => break error,
            }
        };
        assert_eq!(count, LONG);
        assert_eq!(error, ReadError::ConnectionLost(end));
        drop((received, stream, client, server, listener));
        registration.wait_idle().await;
    });
}
