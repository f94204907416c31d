//! The text of an incident.

use insta::assert_snapshot;
use rstest::rstest;

use crate::output::{ReportFormat, TextOptions, report, width};
use crate::study::report::{By, Options, Report, testing};

fn text(of: &Report) -> String {
    written(of, &TextOptions { full: true, ..TextOptions::default() })
}

fn written(of: &Report, options: &TextOptions) -> String {
    let mut out = Vec::new();
    report(&mut out, ReportFormat::Text, options, of).expect("a Vec takes everything");
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn an_incident() {
    let report = testing::incident(Options { top: 3, ..Options::default() });
    assert_snapshot!(text(&report), @r"
    web-1, 2025-01-02 03:00:00 to 03:05:00 UTC (5m00s)
    LOST EVENTS: 17 (ring buffer full, try --ring-size). Not in the figures below.
    DAMAGED: t.tct: block 7 at byte 40960: checksum does not match
    11,459 connections, 2,990 still open
    opened 11,459 (38.2/s, most 64.0/s at 03:04:54)
    ended  8,469 (28.2/s, most 55.0/s at 03:04:55)

    STATE      SOCKETS STILL IN  MOST AT          P50    P99 LONGEST OVER TIME
    TIME_WAIT   10,350    2,887 2,888 03:04:59  59.9s  59.9s   60.0s ▁▁▁▂▂▃▃▃▄▄▄▅▅▅▆▆▆▇▇▇████
    CLOSE_WAIT     997      100   100 03:04:59 10.3ms ≥3m01s  ≥3m19s ▁▁▁▁▁▁▁▁▁▁▂▂▃▃▄▄▅▅▆▆▇▇██
    FIN_WAIT2   10,356        0  1.01 03:00:56 60.0µs 60.0µs   40.0s ▅██▆▅██▆▅██▆▅██▆▅██▆▅██▆
               shares of the sockets in this state, averaged over time:
    TIME_WAIT  of    python3[4242] in web.service 100 %
               with  10.0.0.5:6379 100 %
               ended expired 6,180 (82.8 %), reused 1,283 (17.1 %)
    CLOSE_WAIT of    java[991] in container 0123456789ab 79.1 %, unknown process in container 0123456789ab 20.7 %, nginx ×3 in nginx.service <0.1 %
               with  10.2.0.7 99.9 %, 10.1.0.1 <0.1 %, 10.1.0.2 <0.1 %, others <0.1 %
               at    port 8080 99.9 %, port 80 <0.1 %
               20 were never accepted
    FIN_WAIT2  of    unknown process in web.service 99.7 %, python3[4242] in web.service 0.2 %
               with  192.0.2.9:443 99.7 %, 10.0.0.5:6379 0.2 %

    CLOSED BY  active 10,356 (90.3 %), passive 1,000 (8.7 %), never_established 60 (0.5 %), reset_remote 43 (0.3 %)
    ENDED BY   fin 8,360 (98.7 %), refused 60 (0.7 %), reset_received 43 (0.5 %), fin_wait2_timeout 6 (<0.1 %)
    FAILED     109 (1.2 %), 43 by a reset
               refused 60: with 10.0.0.9:8443 100 %; of curl ×60 in web.service 100 %
               reset_received 43: with 10.0.0.5:6379 100 %; of python3[4242] in web.service 100 %
               fin_wait2_timeout 6: with 192.0.2.9:443 100 %; of unknown process in web.service 100 %
    DROPPED    19,982 SYN cookies sent (SyncookiesSent): the SYN queue is full or tcp_syncookies is 2
               15 SYNs and ACKs dropped (ListenOverflows): the accept queue is full
               15 SYNs and ACKs dropped by listeners (ListenDrops): for any reason (full queues included)
    SHORT      10,750 connections (93.8 %) in ESTABLISHED for less than 1 s; most:
               python3[4242] in web.service → 10.0.0.5:6379: 10,350 (34.5/s), median 1.88ms, 210 sent and 1.2K received each
    OPEN       TIME_WAIT 2,887 (96.5 %), CLOSE_WAIT 100 (3.3 %), ESTABLISHED 3 (0.1 %)
               CLOSE_WAIT: java[991] in container 0123456789ab has 80, the oldest for 3m17s

    OVER TIME, 03:00:00 to 03:05:00
                                                                               HIGHEST
      opened      ▂▂▂▂▃▃▃▃▃▃▃▃▃▄▄▄▄▄▄▄▄▄▅▅▅▅▅▅▅▅▅▆▆▆▆▆▆▆▆▆▇▇▇▇▇▇▇▇▇▇██████████  63.5/s
      ended       ▁▁▁▁▁▁▁▁▁▁▁▁▃▃▃▃▃▃▃▄▄▄▄▄▄▄▄▄▅▅▅▅▅▅▅▅▆▆▆▆▆▆▆▇▇▇▇▇▇▇▇▇████████  54.0/s
      failed      █▃█▆▄▆█▆▄██▆▄▆█▃█▆▄██▆▄▆█▆▄▆█▆█▆▄▆█▆▄▆██▄▆█▃█▆▄▆██▄▆█▆▄▆█▃██  1.50/s
      TIME_WAIT   ▁▁▁▁▁▁▁▂▂▂▂▂▃▃▃▃▃▃▃▄▄▄▄▄▄▄▄▅▅▅▅▅▅▅▅▆▆▆▆▆▆▆▆▇▇▇▇▇▇▇▇█████████   2,881
      CLOSE_WAIT  ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▂▂▂▂▂▃▃▃▃▃▄▄▄▄▄▅▅▅▅▅▆▆▆▆▆▇▇▇▇▇█████     100
      FIN_WAIT2   ▁▇███████▂▁▇███████▂▁▇███████▂▁▇███████▂▁▇███████▂▁▇███████▂    1.00
      ESTABLISHED ██▇█████████████▇███████████████████████████▇█████████████▇█    5.51

    WHO CLOSED FIRST
      CLOSER            CONNECTIONS  SHARE
      active                 10,356 90.3 %
      passive                 1,000  8.7 %
      never_established          60  0.5 %
      reset_remote               43  0.3 %

    HOW CONNECTIONS ENDED
      END               CONNECTIONS  SHARE
      fin                     8,360 98.7 % closed by FINs in both directions
      refused                    60  0.7 % the peer answered the SYN with a reset
      reset_received             43  0.5 % the peer sent a reset
      fin_wait2_timeout           6 <0.1 % the peer never closed its side

    HOW TIME_WAITS ENDED
      END     CONNECTIONS  SHARE
      expired       6,180 82.8 %
      reused        1,283 17.1 %

    STATES OF CONNECTIONS STILL OPEN
      STATE       CONNECTIONS  SHARE
      TIME_WAIT         2,887 96.5 %
      CLOSE_WAIT          100  3.3 %
      ESTABLISHED           3  0.1 %

    TIME_WAIT: 10,350 sockets
      TIME IN IT  SOCKETS    MIN   P50   P90   P99    MAX
      all          10,350        59.9s 59.9s 59.9s  60.0s
      exact         7,463  1.10s                    60.0s
      lower bound   2,887 ≥592ms                   ≥59.9s

       FROM BELOW SOCKETS     ≥
      500ms    1s       0    59 ▍
         1s    2s   1,283    52 ████████
         2s    5s       0   156 █
         5s   10s       0   256 █▌
        10s   20s       0   500 ███
        20s   50s       0 1,420 ████████▋
        50s  100s   6,180   444 ████████████████████████████████████████

      PROCESS                      OF TIME SOCKETS SHARE STILL IN   P50   P90 LONGEST
      python3[4242] in web.service   100 %  10,350 100 %    2,887 59.5s 59.5s   60.0s

      by remote: 10.0.0.5:6379 100 %
      by container: web.service 100 %
      by netns:  netns 4026532000 100 %

    CLOSE_WAIT: 997 sockets
      TIME IN IT  SOCKETS    MIN    P50    P90    P99    MAX
      all             997        10.3ms ≥3m01s ≥3m01s ≥3m19s
      exact           897 2.00ms                      16.9ms
      lower bound     100 ≥1.96s                      ≥3m19s

      FROM BELOW SOCKETS   ≥
       2ms   5ms     180     █████████████████▎
       5ms  10ms     300     ████████████████████████████▊
      10ms  20ms     417     ████████████████████████████████████████
         ⋮
        1s    2s       0   1 ▏
        2s    5s       0   1 ▏
        5s   10s       0   3 ▎
       10s   20s       0   5 ▌
       20s   50s       0  15 █▌
       50s  100s       0  25 ██▍
      100s  200s       0  50 ████▊

      PROCESS                                   OF TIME SOCKETS  SHARE STILL IN    P50    P90 LONGEST
      java[991] in container 0123456789ab        79.1 %      80  8.0 %       80 ≥2m51s ≥2m51s  ≥3m17s
      unknown process in container 0123456789ab  20.7 %      20  2.0 %       20 ≥1m49s ≥1m49s  ≥3m19s
      nginx ×3 in nginx.service                  <0.1 %     897 89.9 %        0 9.56ms 15.3ms  16.9ms

      by remote: 10.2.0.7 99.9 %, 10.1.0.1 <0.1 %, 10.1.0.2 <0.1 %, others <0.1 %
      by lport:  port 8080 99.9 %, port 80 <0.1 %
      by container: container 0123456789ab 99.9 %, nginx.service <0.1 %
      by netns:  netns 4026532000 100 %

    FIN_WAIT2: 10,356 sockets
      TIME IN IT SOCKETS    MIN    P50    P90    P99   MAX
      all         10,356        60.0µs 60.0µs 60.0µs 40.0s
      exact       10,356 60.0µs                      40.0s

      FROM BELOW SOCKETS   ≥
      50µs 100µs  10,350     ████████████████████████████████████████
         ⋮
       20s   50s       6     ▏

      PROCESS                        OF TIME SOCKETS  SHARE STILL IN    P50    P90 LONGEST
      unknown process in web.service  99.7 %       6 <0.1 %        0  40.0s  40.0s   40.0s
      python3[4242] in web.service     0.2 %  10,350 99.9 %        0 60.0µs 60.0µs  60.0µs

      by remote: 192.0.2.9:443 99.7 %, 10.0.0.5:6379 0.2 %
      by container: web.service 100 %
      by netns:  netns 4026532000 100 %

    ALL CONNECTIONS
      PROCESS                             CONNECTIONS  SHARE   RATE STILL OPEN FAILED ESTAB P50 LONGEST SENT  RECV
      python3[4242] in web.service             10,393 90.6 % 34.6/s      2,887     43    1.88ms   3.00s 2.0M 12.8M
      nginx ×3 in nginx.service                   900  7.8 % 3.00/s          3      0     1.29s   2.20s 184K  1.1M
      java[991] in container 0123456789ab          80  0.6 % 0.27/s         80      0    30.0ms  30.0ms    0     0
      3 others                                     86  0.7 % 0.29/s         20     66    30.1ms   2.00s 1.2K  7.6K

    SHORT-LIVED CONNECTIONS (in ESTABLISHED for less than 1 s)
      PROCESS AND PEER                                          SHORT   RATE LONGER CLOSED FIRST ESTAB P50 SENT EACH RECV EACH
      python3[4242] in web.service → 10.0.0.5:6379             10,350 34.5/s     43        100 %    1.88ms       210      1.2K
      java[991] in container 0123456789ab port 8080 ← 10.2.0.7     80 0.27/s      0          0 %    30.0ms         -         -
      nginx ×3 in nginx.service port 80 ← 10.1.0.0                 75 0.25/s    150          0 %     400ms       210      1.2K
      4 others                                                    245 0.82/s    448          0 %     398ms       210      1.2K

    RESETS AND FAILURES
      END               CONNECTIONS SHARE REMOTE
      refused                    60 100 % 10.0.0.9:8443
      reset_received             43 100 % 10.0.0.5:6379
      fin_wait2_timeout           6 100 % 192.0.2.9:443

      END               CONNECTIONS SHARE PROCESS
      refused                    60 100 % curl ×60 in web.service
      reset_received             43 100 % python3[4242] in web.service
      fin_wait2_timeout           6 100 % unknown process in web.service

    DROPPED BEFORE A SOCKET EXISTED (kernel counters)
      COUNTER         INCREASE FIRST    LAST     NETWORK NAMESPACE
      SyncookiesSent    19,982 03:00:40 03:00:41 web\x1b[2J
      ListenOverflows       15 03:03:20 03:03:20 netns 4026532000
      ListenDrops           15 03:03:20 03:03:20 netns 4026532000

    STILL OPEN AT THE END
      STATE       CONNECTIONS  SHARE OLDEST NOT ACCEPTED PROCESS
      TIME_WAIT         2,887  100 %  59.9s            0 python3[4242] in web.service
      CLOSE_WAIT           80 80.0 %  3m17s            0 java[991] in container 0123456789ab
      CLOSE_WAIT           20 20.0 %  3m19s           20 unknown process in container 0123456789ab
      ESTABLISHED           3  100 %  1.99s            0 nginx ×3 in nginx.service

    LONGEST IN TIME_WAIT
       HELD END PROCESS       LOCAL          REMOTE        STATES
      60.0s fin python3[4242] 10.0.0.1:33048 10.0.0.5:6379 SYN_SENT 90.0µs › ESTABLISHED 2.80ms › FIN_WAIT1 40.0µs › FIN_WAIT2 60.0µs › TIME_WAIT 60.0s
      60.0s fin python3[4242] 10.0.0.1:33048 10.0.0.5:6379 SYN_SENT 90.0µs › ESTABLISHED 2.80ms › FIN_WAIT1 40.0µs › FIN_WAIT2 60.0µs › TIME_WAIT 60.0s
      60.0s fin python3[4242] 10.0.0.1:33048 10.0.0.5:6379 SYN_SENT 90.0µs › ESTABLISHED 2.80ms › FIN_WAIT1 40.0µs › FIN_WAIT2 60.0µs › TIME_WAIT 60.0s

    LONGEST IN CLOSE_WAIT
        HELD END        PROCESS   LOCAL         REMOTE         STATES
      ≥3m19s still open -         10.0.0.1:8080 10.2.0.7:41000 SYN_RECV 60.0µs › ESTABLISHED 30.0ms › CLOSE_WAIT ≥3m19s
      ≥3m17s still open java[991] 10.0.0.1:8080 10.2.0.7:41000 SYN_RECV 60.0µs › ESTABLISHED 30.0ms › CLOSE_WAIT ≥3m17s
      ≥3m15s still open java[991] 10.0.0.1:8080 10.2.0.7:41000 SYN_RECV 60.0µs › ESTABLISHED 30.0ms › CLOSE_WAIT ≥3m15s

    LONGEST LIVES, from opening to end
        HELD END        PROCESS   LOCAL         REMOTE         STATES
      ≥3m20s still open -         10.0.0.1:8080 10.2.0.7:41000 SYN_RECV 60.0µs › ESTABLISHED 30.0ms › CLOSE_WAIT ≥3m19s
      ≥3m18s still open java[991] 10.0.0.1:8080 10.2.0.7:41000 SYN_RECV 60.0µs › ESTABLISHED 30.0ms › CLOSE_WAIT ≥3m17s
      ≥3m16s still open java[991] 10.0.0.1:8080 10.2.0.7:41000 SYN_RECV 60.0µs › ESTABLISHED 30.0ms › CLOSE_WAIT ≥3m15s
    ");
}

/// The screen alone, on a terminal of this size, or without one.
fn screen(size: Option<(usize, usize)>, options: Options) -> String {
    let (width, height) = size.unzip();
    written(&testing::incident(options), &TextOptions { width, height, ..TextOptions::default() })
}

#[rstest]
#[case("none", None)]
#[case("80", Some((80, 24)))]
#[case("100", Some((100, 40)))]
#[case("140", Some((140, 50)))]
fn one_screen(#[case] name: &str, #[case] size: Option<(usize, usize)>) {
    assert_snapshot!(format!("one_screen_{name}"), screen(size, Options::default()));
}

#[test]
fn the_screen_is_where_the_full_report_begins() {
    let full = text(&testing::incident(Options::default()));
    let screen = screen(None, Options::default());
    let full: Vec<&str> = full.lines().collect();
    let (last, shown) =
        screen.lines().collect::<Vec<_>>().split_last().map(|(last, shown)| (*last, shown.to_vec())).expect("lines");
    assert!(last.starts_with("MORE       --full"), "{last}");
    assert!(shown.iter().all(|line| full[..40].contains(line)), "{screen}");
}

/// For every grouping and terminal size, no line wraps, losses come first, and the way to the rest comes last.
#[rstest]
fn one_screen_is_one_screen(
    #[values(80, 81, 90, 100, 120, 160)] columns: usize,
    #[values(1, 24, 30, 60)] lines: usize,
    #[values(By::Process, By::Remote, By::Lport, By::Container, By::Netns)] by: By,
) {
    let text = screen(Some((columns, lines)), Options { by: Some(by), ..Options::default() });
    assert!(text.lines().count() <= (lines.max(24) - 2).min(30), "{text}");
    assert!(text.lines().all(|line| width(line) <= columns), "{text}");
    assert!(text.lines().nth(1).is_some_and(|line| line.starts_with("LOST EVENTS: 17")), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.starts_with("MORE")), "{text}");
}

/// Escape sequences take no columns.
#[test]
fn colour_does_not_break_the_screen() {
    let options = TextOptions { width: Some(80), height: Some(24), ..TextOptions::default() };
    let plain = written(&testing::incident(Options::default()), &options);
    let coloured = written(&testing::incident(Options::default()), &TextOptions { colour: true, ..options });
    assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), plain);
}

#[test]
fn nothing_at_all() {
    assert_snapshot!(text(&Report::default()), @"
    unknown host, 1970-01-01 00:00:00 to 00:00:00 UTC (0ns)
    0 connections, 0 still open
    opened 0 (-)
    ended  0 (-)

    STATE SOCKETS STILL IN MOST AT P50 P99 LONGEST OVER TIME
               shares of the sockets in this state, averaged over time:

    CLOSED BY  -
    ENDED BY   -
    FAILED     none
    SHORT      no connection was in ESTABLISHED for less than 1 s
    OPEN       -
    ");
}

#[test]
fn by_remote_end() {
    let report = testing::incident(Options { top: 2, by: Some(By::Remote) });
    let text = text(&report);
    assert!(text.contains("  REMOTE"), "{text}");
}

/// What is wrong comes before the figures, a line each; in depth, with its evidence.
#[test]
fn findings_come_first() {
    let cases = vec![crate::output::diagnose::testing::ill()];
    let report = Report { cases, ..testing::incident(Options::default()) };
    let screen = written(&report, &TextOptions::default());
    let place = |text: &str| screen.find(text).unwrap_or(usize::MAX);
    assert!(place("FOUND      critical: api[4711] holds 348") < place("11,459 connections"), "{screen}");
    assert!(place("tcptrace diagnose FILE shows") < place("STATE      SOCKETS"), "{screen}");
    assert_ne!(place("STATE      SOCKETS"), usize::MAX, "{screen}");
    assert!(screen.lines().count() <= 30, "{screen}");
    let full = text(&report);
    assert!(full.contains("FINDINGS: vm, looked for") && full.contains("  evidence  fd 12 … 371"), "{full}");
}

#[test]
fn markdown() {
    let cases = vec![crate::output::diagnose::testing::ill()];
    let incident = Report { cases, ..testing::incident(Options::default()) };
    let mut out = Vec::new();
    report(&mut out, ReportFormat::Markdown, &TextOptions::default(), &incident).expect("a Vec takes everything");
    assert_snapshot!(String::from_utf8(out).expect("UTF-8"));
}
