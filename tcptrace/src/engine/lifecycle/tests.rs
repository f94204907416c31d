//! The engine, case by case and at random.

mod accepts;
mod existing;
mod missing;
mod property;
mod script;

use rstest::rstest;

use script::{play, play_rows};

use crate::model::event::{Event, Idle, Totals};
use crate::model::row::{Connection, Row, Transition};
use crate::model::tcp::State;

/// What the kernel shows of a life, and what the engine makes of it. Times are in ms; see [`script`] for the words.
#[rstest]
#[case::client_closes_first(
    "0 CLOSED>SYN_SENT task=7 noport; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7 snd rcv sock;
     6 FIN_WAIT1>FIN_WAIT2 dead; 6 FIN_WAIT2>CLOSED dead mini=FIN_WAIT2; 9 fin; 60009 expired TIME_WAIT",
    "client active fin tw=expired owner=7/connect | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 1 FIN_WAIT2 3 TIME_WAIT 60000"
)]
#[case::both_fins_in_one_segment(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7;
     6 FIN_WAIT1>FIN_WAIT2 dead; 6 FIN_WAIT2>CLOSED dead done mini=TIME_WAIT; 61006 expired TIME_WAIT",
    "client active fin tw=expired owner=7/connect | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 1 FIN_WAIT2 0 TIME_WAIT 61000"
)]
#[case::server_side_passive(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 4 ESTABLISHED>CLOSE_WAIT done; 90 CLOSE_WAIT>LAST_ACK task=9 done sock;
     91 LAST_ACK>CLOSED dead done acked; 91 destroy",
    "server passive fin owner=9/close | SYN_RECV 0 ESTABLISHED 4 CLOSE_WAIT 86 LAST_ACK 1"
)]
#[case::half_close_then_peers_fin_with_descriptor_open(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 2 ESTABLISHED>FIN_WAIT1 task=7 snd sock; 3 FIN_WAIT1>FIN_WAIT2 snd sock;
     800 FIN_WAIT2>CLOSED done snd rcv sock mini=TIME_WAIT; 900 destroy; 60800 expired TIME_WAIT",
    "client active fin tw=expired owner=7/connect | SYN_SENT 1 ESTABLISHED 1 FIN_WAIT1 1 FIN_WAIT2 797 TIME_WAIT 60000"
)]
#[case::half_close_then_close(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 2 ESTABLISHED>FIN_WAIT1 task=7 snd sock; 3 FIN_WAIT1>FIN_WAIT2 snd sock;
     10 FIN_WAIT2>FIN_WAIT2 task=8 snd rcv sock; 10 FIN_WAIT2>CLOSED dead snd rcv mini=FIN_WAIT2; 2010 expired FIN_WAIT2",
    "client active fin_wait2_timeout owner=7/connect closed_by=8 | SYN_SENT 1 ESTABLISHED 1 FIN_WAIT1 1 FIN_WAIT2 2007"
)]
#[case::simultaneous_close(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 2 ESTABLISHED>FIN_WAIT1 task=7 snd rcv sock; 3 FIN_WAIT1>CLOSING dead done;
     4 CLOSING>CLOSED dead done acked mini=TIME_WAIT; 60004 expired TIME_WAIT",
    "client simultaneous fin tw=expired owner=7/connect | SYN_SENT 1 ESTABLISHED 1 FIN_WAIT1 1 CLOSING 1 TIME_WAIT 60000"
)]
#[case::self_connect(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>SYN_RECV; 2 SYN_RECV>ESTABLISHED; 3 ESTABLISHED>CLOSED task=7 err=104",
    "client reset_remote reset_received owner=7/connect | SYN_SENT 1 SYN_RECV 1 ESTABLISHED 1"
)]
#[case::close_with_unread_data(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 5 ESTABLISHED>CLOSED task=9 snd rcv sock unread=10; 5 reset ABORT_ON_CLOSE",
    "server reset_local reset_unread_data owner=9/close | SYN_RECV 0 ESTABLISHED 5"
)]
#[case::linger0(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 5 ESTABLISHED>CLOSED task=9 snd rcv sock linger0 rst",
    "server reset_local reset_linger0 owner=9/close | SYN_RECV 0 ESTABLISHED 5"
)]
#[case::linger0_in_close_wait(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 5 ESTABLISHED>CLOSE_WAIT done; 7 CLOSE_WAIT>CLOSED task=9 snd rcv sock done linger0 rst",
    "server passive reset_linger0 owner=9/close | SYN_RECV 0 ESTABLISHED 5 CLOSE_WAIT 2"
)]
#[case::disconnect(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>CLOSED task=7 sock rst",
    "client reset_local disconnected owner=7/connect | SYN_SENT 1 ESTABLISHED 4"
)]
#[case::disconnect_after_a_shutdown_of_both_sides(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 2 ESTABLISHED>FIN_WAIT1 task=7 snd rcv sock; 3 FIN_WAIT1>FIN_WAIT2 snd rcv sock;
     5 FIN_WAIT2>CLOSED task=7 snd rcv sock rst",
    "client active disconnected owner=7/connect | SYN_SENT 1 ESTABLISHED 1 FIN_WAIT1 1 FIN_WAIT2 2"
)]
#[case::disconnect_or_close_with_unread_data_after_such_a_shutdown(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 2 ESTABLISHED>FIN_WAIT1 task=7 snd rcv sock; 3 FIN_WAIT1>FIN_WAIT2 snd rcv sock;
     5 FIN_WAIT2>CLOSED task=7 snd rcv sock unread=10 rst; 5 destroy shut",
    "client active unknown owner=7/connect | SYN_SENT 1 ESTABLISHED 1 FIN_WAIT1 1 FIN_WAIT2 2"
)]
#[case::close_or_disconnect_with_unread_data_where_resets_have_no_names(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 2 ESTABLISHED>FIN_WAIT1 task=7 snd sock; 3 FIN_WAIT1>FIN_WAIT2 snd sock;
     5 FIN_WAIT2>CLOSED task=7 snd rcv sock unread=10 rst; 25 destroy shut",
    "client active unknown owner=7/connect | SYN_SENT 1 ESTABLISHED 1 FIN_WAIT1 1 FIN_WAIT2 2"
)]
#[case::linger0_after_a_shutdown_of_one_side(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 2 ESTABLISHED>FIN_WAIT1 task=7 snd sock; 3 FIN_WAIT1>FIN_WAIT2 snd sock;
     5 FIN_WAIT2>CLOSED task=7 snd rcv sock linger0 rst; 5 destroy open",
    "client active reset_linger0 owner=7/connect | SYN_SENT 1 ESTABLISHED 1 FIN_WAIT1 1 FIN_WAIT2 2"
)]
#[case::linger0_or_disconnect_where_nobody_saw_what_was_shut(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 2 ESTABLISHED>FIN_WAIT1 task=7 snd sock; 3 FIN_WAIT1>FIN_WAIT2 snd sock;
     5 FIN_WAIT2>CLOSED task=7 snd rcv sock linger0 rst; 5 destroy",
    "client active unknown owner=7/connect | SYN_SENT 1 ESTABLISHED 1 FIN_WAIT1 1 FIN_WAIT2 2"
)]
#[case::disconnect_after_shutdowns_of_either_side(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 2 ESTABLISHED>FIN_WAIT1 task=7 snd sock; 3 FIN_WAIT1>FIN_WAIT2 snd sock;
     5 FIN_WAIT2>CLOSED task=7 snd rcv sock linger0 rst; 6 destroy shut",
    "client active disconnected owner=7/connect | SYN_SENT 1 ESTABLISHED 1 FIN_WAIT1 1 FIN_WAIT2 2"
)]
#[case::disconnect_of_a_socket_that_is_kept(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 2 ESTABLISHED>FIN_WAIT1 task=7 snd sock; 3 FIN_WAIT1>FIN_WAIT2 snd sock;
     5 FIN_WAIT2>CLOSED task=7 snd rcv sock linger0 rst; 400 other destroy",
    "client active disconnected owner=7/connect | SYN_SENT 1 ESTABLISHED 1 FIN_WAIT1 1 FIN_WAIT2 2"
)]
#[case::unread_data_by_name(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 2 ESTABLISHED>FIN_WAIT1 task=7 snd sock; 3 FIN_WAIT1>FIN_WAIT2 snd sock;
     5 FIN_WAIT2>CLOSED task=7 snd rcv sock unread=10; 5 reset ABORT_ON_CLOSE; 5 destroy shut",
    "client active reset_unread_data owner=7/connect | SYN_SENT 1 ESTABLISHED 1 FIN_WAIT1 1 FIN_WAIT2 2"
)]
#[case::disconnect_with_unread_data_where_resets_are_named(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 2 ESTABLISHED>FIN_WAIT1 task=7 snd sock; 3 FIN_WAIT1>FIN_WAIT2 snd sock;
     5 FIN_WAIT2>CLOSED task=7 snd rcv sock unread=10; 5 reset STATE; 6 destroy shut",
    "client active disconnected owner=7/connect | SYN_SENT 1 ESTABLISHED 1 FIN_WAIT1 1 FIN_WAIT2 2"
)]
#[case::closed_in_repair_mode(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED syn; 5 ESTABLISHED>CLOSED task=8 snd rcv sock unread=3; 5 destroy",
    "client unknown disconnected owner=7/connect closed_by=8 | SYN_SENT 1 ESTABLISHED 4"
)]
#[case::restored_in_repair_mode(
    "0 CLOSED>SYN_SENT task=7; 0 SYN_SENT>ESTABLISHED silent; 5 ESTABLISHED>CLOSE_WAIT done; 7 CLOSE_WAIT>LAST_ACK task=7 done sock;
     8 LAST_ACK>CLOSED dead done acked",
    "unknown passive fin owner=7/connect | SYN_SENT 0 ESTABLISHED 5 CLOSE_WAIT 2 LAST_ACK 1"
)]
#[case::linger0_after_both_fins(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 5 ESTABLISHED>CLOSE_WAIT done; 7 CLOSE_WAIT>LAST_ACK task=9 snd rcv sock done;
     8 LAST_ACK>CLOSED task=9 snd rcv sock done linger0; 8 destroy",
    "server passive disconnected owner=9/close | SYN_RECV 0 ESTABLISHED 5 CLOSE_WAIT 2 LAST_ACK 1"
)]
#[case::linger0_in_closing(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 2 ESTABLISHED>FIN_WAIT1 task=7 snd rcv sock; 3 FIN_WAIT1>CLOSING done sock;
     4 CLOSING>CLOSED task=7 snd rcv sock done linger0; 400 advance",
    "client simultaneous disconnected owner=7/connect | SYN_SENT 1 ESTABLISHED 1 FIN_WAIT1 1 CLOSING 1"
)]
#[case::reset_received_in_established(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 5 receive_reset; 5 ESTABLISHED>CLOSED task=666 sock err=104",
    "server reset_remote reset_received | SYN_RECV 0 ESTABLISHED 5"
)]
#[case::reset_received_in_close_wait(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 5 ESTABLISHED>CLOSE_WAIT done; 9 CLOSE_WAIT>CLOSED task=666 sock done rcv err=32",
    "server passive reset_received | SYN_RECV 0 ESTABLISHED 5 CLOSE_WAIT 4"
)]
#[case::reset_in_last_ack(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 5 ESTABLISHED>CLOSE_WAIT done; 9 CLOSE_WAIT>LAST_ACK task=9 done sock;
     10 LAST_ACK>CLOSED dead done err=104; 600 advance",
    "server passive reset_received owner=9/close | SYN_RECV 0 ESTABLISHED 5 CLOSE_WAIT 4 LAST_ACK 1"
)]
#[case::refused(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>CLOSED err=111 sock",
    "client never_established refused owner=7/connect | SYN_SENT 1"
)]
#[case::connect_timeout(
    "0 CLOSED>SYN_SENT task=7; 3000 SYN_SENT>CLOSED err=110 sock",
    "client never_established connect_timeout owner=7/connect | SYN_SENT 3000"
)]
#[case::unreachable(
    "0 CLOSED>SYN_SENT task=7; 30 SYN_SENT>CLOSED err=113 sock",
    "client never_established unreachable owner=7/connect | SYN_SENT 30"
)]
#[case::closed_while_connecting(
    "0 CLOSED>SYN_SENT task=7 noport; 30 SYN_SENT>CLOSED task=8 snd rcv sock",
    "client never_established closed_while_connecting owner=7/connect closed_by=8 | SYN_SENT 30"
)]
#[case::shut_down_while_connecting(
    "0 CLOSED>SYN_SENT task=7 noport; 30 SYN_SENT>CLOSED task=8 sock syn",
    "client never_established closed_while_connecting owner=7/connect closed_by=8 | SYN_SENT 30"
)]
#[case::no_free_port_for_a_bound_one(
    "0 CLOSED>SYN_SENT task=7; 0 SYN_SENT>CLOSED task=7 sock silent acked",
    "client never_established no_local_port owner=7/connect | SYN_SENT 0"
)]
#[case::a_fast_open_connect_given_up_before_its_syn(
    "0 CLOSED>SYN_SENT task=7; 9 SYN_SENT>CLOSED task=7 sock silent",
    "client never_established unknown owner=7/connect | SYN_SENT 9"
)]
#[case::a_trace_that_does_not_say_whether_a_syn_was_sent(
    "0 CLOSED>SYN_SENT task=7; 30 SYN_SENT>CLOSED task=7 sock acked",
    "client never_established unknown owner=7/connect | SYN_SENT 30"
)]
#[case::closed_before_the_handshake_is_done(
    "0 LISTEN>SYN_RECV; 1 accepted task=8; 5 SYN_RECV>FIN_WAIT1 task=9 snd rcv sock child; 6 FIN_WAIT1>FIN_WAIT2 dead;
     6 FIN_WAIT2>CLOSED dead done mini=TIME_WAIT; 60006 expired TIME_WAIT",
    "server active fin tw=expired owner=8/accept closed_by=9 | SYN_RECV 5 FIN_WAIT1 1 FIN_WAIT2 0 TIME_WAIT 60000"
)]
#[case::no_local_port(
    "0 CLOSED>SYN_SENT task=7 noport; 1 SYN_SENT>CLOSED task=7 sock noport",
    "client never_established no_local_port owner=7/connect | SYN_SENT 1"
)]
#[case::retransmission_timeout(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 900 ESTABLISHED>CLOSED sock err=110 inflight retr=5",
    "client timeout retransmit_timeout owner=7/connect | SYN_SENT 1 ESTABLISHED 899"
)]
#[case::user_timeout(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 900 ESTABLISHED>CLOSED sock err=110 inflight retr=2 ut",
    "client timeout user_timeout owner=7/connect | SYN_SENT 1 ESTABLISHED 899"
)]
#[case::keepalive_timeout(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 900 reset KEEPALIVE_TIMEOUT; 900 ESTABLISHED>CLOSED sock err=110 ka acked probes=2",
    "client timeout keepalive_timeout owner=7/connect | SYN_SENT 1 ESTABLISHED 899"
)]
#[case::orphan_times_out_in_fin_wait1(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7 snd rcv sock; 900 FIN_WAIT1>CLOSED dead err=110 inflight retr=8",
    "client active retransmit_timeout owner=7/connect | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 895"
)]
#[case::too_many_orphans(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7 snd rcv sock; 5 FIN_WAIT1>CLOSED dead inflight",
    "client active orphan_killed owner=7/connect | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 0"
)]
#[case::killed_by_admin(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 reset OTHER; 5 ESTABLISHED>CLOSED task=99 sock err=103",
    "client killed killed owner=7/connect closed_by=99 | SYN_SENT 1 ESTABLISHED 4"
)]
#[case::never_accepted(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 5 ESTABLISHED>CLOSED task=9 rst",
    "server reset_local never_accepted owner=9/close | SYN_RECV 0 ESTABLISHED 5"
)]
#[case::never_accepted_and_no_reset_sent(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 5 ESTABLISHED>CLOSED task=9; 5 destroy",
    "server unknown never_accepted owner=9/close | SYN_RECV 0 ESTABLISHED 5"
)]
#[case::a_reset_that_may_have_been_lost(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 5 ESTABLISHED>CLOSED task=9 snd rcv sock linger0; 6 lost; 7 destroy",
    "server unknown unknown owner=9/close incomplete | SYN_RECV 0 ESTABLISHED 5"
)]
#[case::data_after_close_in_the_same_soft_interrupt(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7 snd rcv sock; 6 FIN_WAIT1>FIN_WAIT2 dead;
     6 FIN_WAIT2>CLOSED dead mini=none; 6 destroy; 6 reset ABORT_ON_DATA",
    "client active reset_data_after_close owner=7/connect | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 1 FIN_WAIT2 0"
)]
#[case::data_after_close_to_a_mini_socket(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7 snd rcv sock; 6 FIN_WAIT1>FIN_WAIT2 dead;
     6 FIN_WAIT2>CLOSED dead mini=FIN_WAIT2; 16 reset ABORT_ON_DATA; 16 killed FIN_WAIT2 segment",
    "client active reset_data_after_close owner=7/connect | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 1 FIN_WAIT2 10"
)]
#[case::reset_to_a_mini_socket_in_fin_wait2(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7 snd rcv sock; 6 FIN_WAIT1>FIN_WAIT2 dead;
     6 FIN_WAIT2>CLOSED dead mini=FIN_WAIT2; 16 killed FIN_WAIT2 reset",
    "client active reset_received owner=7/connect | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 1 FIN_WAIT2 10"
)]
#[case::data_after_shutdown_where_the_kernel_gives_no_reason(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=9 snd rcv sock; 6 FIN_WAIT1>FIN_WAIT2 snd rcv sock;
     10 FIN_WAIT2>CLOSED snd rcv sock err=104; 10 reset OTHER; 20 destroy",
    "server active reset_data_after_close owner=9/close | SYN_RECV 0 ESTABLISHED 5 FIN_WAIT1 1 FIN_WAIT2 4"
)]
#[case::data_after_shutdown_is_a_reset_that_we_send(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 5 ESTABLISHED>CLOSE_WAIT done; 9 CLOSE_WAIT>LAST_ACK task=9 done sock;
     10 LAST_ACK>CLOSED dead done err=104; 10 destroy; 10 reset ABORT_ON_DATA",
    "server passive reset_data_after_close owner=9/close | SYN_RECV 0 ESTABLISHED 5 CLOSE_WAIT 4 LAST_ACK 1"
)]
#[case::orphan_that_is_no_mini_socket_times_out(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7 snd rcv sock; 6 FIN_WAIT1>FIN_WAIT2 dead;
     2006 reset OTHER; 2006 FIN_WAIT2>CLOSED dead mini=none",
    "client active fin_wait2_timeout owner=7/connect | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 1 FIN_WAIT2 2000"
)]
#[case::negative_linger2(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7 snd rcv sock; 6 FIN_WAIT1>FIN_WAIT2 dead;
     6 FIN_WAIT2>CLOSED dead linger2 mini=none; 6 reset ABORT_ON_DATA",
    "client active reset_other owner=7/connect | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 1 FIN_WAIT2 0"
)]
#[case::time_wait_refused(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7; 6 FIN_WAIT1>FIN_WAIT2 dead;
     6 FIN_WAIT2>CLOSED dead done mini=none",
    "client active fin tw=refused owner=7/connect | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 1 FIN_WAIT2 0"
)]
#[case::orphan_refused_a_mini_socket(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7; 6 FIN_WAIT1>FIN_WAIT2 dead;
     6 FIN_WAIT2>CLOSED dead mini=none; 600 advance",
    "client active fin tw=refused owner=7/connect | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 1 FIN_WAIT2 0"
)]
#[case::time_wait_reused_by_connect(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7; 6 FIN_WAIT1>FIN_WAIT2 dead;
     6 FIN_WAIT2>CLOSED dead done mini=TIME_WAIT; 1206 killed TIME_WAIT connect",
    "client active fin tw=reused owner=7/connect | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 1 FIN_WAIT2 0 TIME_WAIT 1200"
)]
#[case::time_wait_ended_by_a_new_syn(
    "0 ESTABLISHED>FIN_WAIT1; 6 FIN_WAIT1>FIN_WAIT2 dead; 6 FIN_WAIT2>CLOSED dead done mini=TIME_WAIT; 1206 killed TIME_WAIT segment",
    "unknown active fin tw=new_syn incomplete | FIN_WAIT1 6 FIN_WAIT2 0 TIME_WAIT 1200"
)]
#[case::time_wait_ended_by_the_peers_reset(
    "0 ESTABLISHED>FIN_WAIT1; 6 FIN_WAIT1>FIN_WAIT2 dead; 6 FIN_WAIT2>CLOSED dead done mini=TIME_WAIT; 16 killed TIME_WAIT reset",
    "unknown active fin tw=reset incomplete | FIN_WAIT1 6 FIN_WAIT2 0 TIME_WAIT 10"
)]
#[case::time_wait_killed_by_admin(
    "0 ESTABLISHED>FIN_WAIT1; 6 FIN_WAIT1>FIN_WAIT2 dead; 6 FIN_WAIT2>CLOSED dead done mini=TIME_WAIT; 16 killed TIME_WAIT admin",
    "unknown active fin tw=killed incomplete | FIN_WAIT1 6 FIN_WAIT2 0 TIME_WAIT 10"
)]
#[case::time_wait_gone_with_its_namespace(
    "0 ESTABLISHED>FIN_WAIT1; 6 FIN_WAIT1>FIN_WAIT2 dead; 6 FIN_WAIT2>CLOSED dead done mini=TIME_WAIT; 16 killed TIME_WAIT netns",
    "unknown active fin tw=netns_gone incomplete | FIN_WAIT1 6 FIN_WAIT2 0 TIME_WAIT 10"
)]
#[case::time_wait_that_nobody_could_watch(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7; 6 FIN_WAIT1>FIN_WAIT2 dead;
     6 FIN_WAIT2>CLOSED dead done",
    "client active fin tw=unknown owner=7/connect | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 1 FIN_WAIT2 0"
)]
#[case::time_wait_prolonged_by_a_retransmitted_fin(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7; 6 FIN_WAIT1>FIN_WAIT2 dead;
     6 FIN_WAIT2>CLOSED dead done mini=TIME_WAIT; 30000 rearmed TIME_WAIT; 91000 expired TIME_WAIT",
    "client active fin tw=expired owner=7/connect | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 1 FIN_WAIT2 0 TIME_WAIT 90994"
)]
#[case::time_wait_across_a_suspended_machine(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7; 6 FIN_WAIT1>FIN_WAIT2 dead;
     6 FIN_WAIT2>CLOSED dead done mini=TIME_WAIT; 3600000 suspended 3590000; 3651000 expired TIME_WAIT",
    "client active fin tw=expired owner=7/connect | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 1 FIN_WAIT2 0 TIME_WAIT 3650994"
)]
#[case::time_wait_whose_end_was_never_seen(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7; 6 FIN_WAIT1>FIN_WAIT2 dead;
     6 FIN_WAIT2>CLOSED dead done mini=TIME_WAIT; 200000 advance",
    "client active fin tw=unknown owner=7/connect incomplete | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 1 FIN_WAIT2 0 TIME_WAIT ≥60000"
)]
#[case::time_wait_that_ended_or_was_prolonged(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7; 6 FIN_WAIT1>FIN_WAIT2 dead;
     6 FIN_WAIT2>CLOSED dead done mini=TIME_WAIT; 1006 killed TIME_WAIT unknown; 200000 advance",
    "client active fin tw=unknown owner=7/connect incomplete | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 1 FIN_WAIT2 0 TIME_WAIT ≥1000"
)]
#[case::time_wait_that_was_prolonged_after_all(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7; 6 FIN_WAIT1>FIN_WAIT2 dead;
     6 FIN_WAIT2>CLOSED dead done mini=TIME_WAIT; 1006 killed TIME_WAIT unknown; 61000 expired TIME_WAIT",
    "client active fin tw=expired owner=7/connect | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 1 FIN_WAIT2 0 TIME_WAIT 60994"
)]
#[case::fin_overtakes_the_closing_on_another_cpu(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7; 6 FIN_WAIT1>FIN_WAIT2 dead;
     7 fin; 7 FIN_WAIT2>CLOSED dead mini=FIN_WAIT2; 60007 expired TIME_WAIT",
    "client active fin tw=expired owner=7/connect | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 1 FIN_WAIT2 1 TIME_WAIT 60000"
)]
#[case::fin_wait2_turned_time_wait_unseen_without_a_length_to_go_by(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7; 6 FIN_WAIT1>FIN_WAIT2 dead;
     6 FIN_WAIT2>CLOSED dead mini=FIN_WAIT2; 61007 expired TIME_WAIT",
    "client active fin tw=expired owner=7/connect incomplete | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 1"
)]
#[case::pre_existing_connection(
    "1000 ESTABLISHED>CLOSE_WAIT done; 1500 CLOSE_WAIT>LAST_ACK task=9 sock done; 1501 LAST_ACK>CLOSED dead done acked",
    "unknown passive fin owner=9/close incomplete | ESTABLISHED ≥1000 CLOSE_WAIT 500 LAST_ACK 1"
)]
#[case::pre_existing_fin_wait2(
    "1000 FIN_WAIT2>CLOSED dead done mini=TIME_WAIT; 61000 expired TIME_WAIT",
    "unknown active fin tw=expired incomplete | FIN_WAIT2 ≥1000 TIME_WAIT 60000"
)]
#[case::pre_existing_time_wait("1000 expired TIME_WAIT", "unknown unknown fin tw=expired incomplete | TIME_WAIT ≥1000")]
#[case::lost_end_found_by_the_destruction(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 3 lost; 9 destroy",
    "client unknown unknown owner=7/connect incomplete | SYN_SENT 1"
)]
#[case::lost_closing_of_a_full_socket_found_by_the_end_of_its_mini_socket(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7; 6 FIN_WAIT1>FIN_WAIT2 dead; 7 lost;
     60006 expired TIME_WAIT",
    "client active fin tw=expired owner=7/connect incomplete | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 1"
)]
#[case::lost_middle(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 3 lost; 9 CLOSE_WAIT>LAST_ACK task=7 done sock; 10 LAST_ACK>CLOSED dead done acked",
    "client passive fin owner=7/connect incomplete | SYN_SENT 1 LAST_ACK 1"
)]
#[case::gap_in_the_middle_of_a_state(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 3 lost; 9 ESTABLISHED>CLOSED task=7 sock rst",
    "client reset_local disconnected owner=7/connect incomplete | SYN_SENT 1 ESTABLISHED ≥6"
)]
#[case::child_known_by_its_address_first(
    "0 embryo; 2 SYN_RECV>ESTABLISHED child; 5 ESTABLISHED>CLOSED task=9 snd rcv sock linger0 rst",
    "server reset_local reset_linger0 owner=9/close | SYN_RECV 2 ESTABLISHED 3"
)]
#[case::shutdown_before_established_is_not_the_bystanders(
    "0 LISTEN>SYN_RECV; 1 SYN_RECV>ESTABLISHED snd sock; 1 ESTABLISHED>FIN_WAIT1 task=666 snd sock; 2 FIN_WAIT1>CLOSED err=104 sock; 600 advance",
    "server active reset_received | SYN_RECV 1 ESTABLISHED 0 FIN_WAIT1 1"
)]
fn a_life_is_told_right(#[case] events: &str, #[case] expected: &str) {
    assert_eq!(play(events), [expected]);
}

/// The totals of the only connection that has ended.
fn totals(rows: &[Row]) -> Totals {
    let ended = |row: &Row| if let Row::Connection(Connection { totals, .. }) = row { *totals } else { None };
    rows.iter().find_map(ended).expect("an end with its facts")
}

/// tcptrace says whether a reset came only if that is certain, and in agreement with the end.
#[rstest]
#[case::it_came("0 CLOSED>SYN_SENT task=7; 1 receive_reset; 1 SYN_SENT>CLOSED err=111", Some(true))]
#[case::icmp_refused("0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>CLOSED err=111", Some(false))]
#[case::of_another("0 CLOSED>SYN_SENT task=7; 1 other receive_reset; 1 SYN_SENT>CLOSED err=111", Some(false))]
#[case::something_was_lost("0 CLOSED>SYN_SENT task=7; 1 lost; 1 lost_to; 2 SYN_SENT>CLOSED err=111", None)]
#[case::only_the_end_was_seen("1 SYN_SENT>CLOSED err=111", None)]
#[case::only_the_end_was_seen_but_that_tells("1 ESTABLISHED>CLOSED err=104", Some(true))]
#[case::by_fin(
    "0 SYN_SENT>ESTABLISHED; 1 ESTABLISHED>CLOSE_WAIT; 2 CLOSE_WAIT>LAST_ACK; 3 LAST_ACK>CLOSED acked dead",
    None
)]
#[case::data_after_close(
    "0 CLOSED>SYN_SENT; 1 SYN_SENT>ESTABLISHED; 2 ESTABLISHED>FIN_WAIT1; 3 FIN_WAIT1>FIN_WAIT2;
     4 receive_reset; 4 FIN_WAIT2>CLOSED err=104 dead; 4 reset ABORT_ON_DATA",
    Some(false)
)]
#[case::in_time_wait(
    "0 CLOSED>SYN_SENT; 1 SYN_SENT>ESTABLISHED; 2 ESTABLISHED>FIN_WAIT1; 3 FIN_WAIT1>FIN_WAIT2;
     4 FIN_WAIT2>CLOSED done dead mini=TIME_WAIT; 9 killed TIME_WAIT reset",
    Some(true)
)]
#[case::not_in_time_wait(
    "0 CLOSED>SYN_SENT; 1 SYN_SENT>ESTABLISHED; 2 ESTABLISHED>FIN_WAIT1; 3 FIN_WAIT1>FIN_WAIT2;
     4 FIN_WAIT2>CLOSED done dead mini=TIME_WAIT; 60004 expired TIME_WAIT",
    Some(false)
)]
fn a_reset_that_came(#[case] script: &str, #[case] expected: Option<bool>) {
    let rows = script::rows(script);
    assert_eq!(totals(&rows).reset_received, expected);
}

/// What counts is how long it was quiet when the first FIN or reset came; later changes are not about that.
#[rstest]
#[case::we_close(
    "2 ESTABLISHED>FIN_WAIT1 idle=300; 3 FIN_WAIT1>FIN_WAIT2; 4 FIN_WAIT2>CLOSED done dead idle=301",
    Some(300)
)]
#[case::kept_by_the_mini_socket(
    "2 ESTABLISHED>FIN_WAIT1 idle=300; 3 FIN_WAIT1>FIN_WAIT2; 4 FIN_WAIT2>CLOSED done dead mini=TIME_WAIT idle=301;
     60004 expired TIME_WAIT",
    Some(300)
)]
#[case::the_peer_closes("2 ESTABLISHED>CLOSE_WAIT idle=0; 9 CLOSE_WAIT>CLOSED err=32 idle=7", Some(0))]
#[case::reset("2 ESTABLISHED>CLOSED err=104 idle=5", Some(5))]
#[case::nobody_saw_it("2 ESTABLISHED>CLOSE_WAIT; 9 CLOSE_WAIT>CLOSED err=32 idle=7", None)]
fn how_long_it_was_quiet(#[case] script: &str, #[case] expected: Option<u64>) {
    let rows = script::rows(&format!("0 CLOSED>SYN_SENT; 1 SYN_SENT>ESTABLISHED; {script}"));
    let ended = |row: &Row| if let Row::Connection(row) = row { Some(row.idle.and_then(Idle::quiet_ns)) } else { None };
    let quiet: Vec<_> = rows.iter().filter_map(ended).collect();
    assert_eq!(quiet, [expected.map(|ms| ms * 1_000_000)]);
}

/// What was under way when the socket was closed is kept until its row.
#[test]
fn what_was_in_flight_at_the_end() {
    let rows = script::rows("0 CLOSED>SYN_SENT task=7; 9 SYN_SENT>CLOSED err=110 inflight retr=6");
    let totals = totals(&rows);
    assert_eq!((totals.in_flight, totals.retransmits_unanswered), (true, 6));
}

/// Where received resets are not seen, their absence is unknown.
#[test]
fn resets_that_are_not_seen() {
    let mut engine = super::Engine::new(super::Config { received_resets: false, ..super::Config::default() });
    let mut rows = Vec::new();
    let script = "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>CLOSED err=111";
    script::parse(script).iter().for_each(|event| engine.feed(event, &mut rows));
    assert_eq!(totals(&rows).reset_received, None);
}

/// An interface is noted when it is known and kept to the end; the latest one is right.
#[test]
fn an_interface_stays() {
    let mut engine = super::Engine::new(super::Config::default());
    let mut rows = Vec::new();
    let script = "0 LISTEN>SYN_RECV; 1 SYN_RECV>ESTABLISHED sock; 2 ESTABLISHED>CLOSE_WAIT; 3 CLOSE_WAIT>CLOSED err=32";
    for (mut event, interface) in script::parse(script).into_iter().zip([4, 5, 0, 0]) {
        if let Event::Change(change) = &mut event {
            change.interface = interface;
        }
        engine.feed(&event, &mut rows);
    }
    let shown: Vec<u32> = rows.iter().filter_map(|row| Some(row.identity()?.interface)).collect();
    assert_eq!(shown, [4, 5, 5, 5, 5]);
}

/// Without the hook for resets, tcptrace claims nothing about them.
#[rstest]
#[case::linger0("ESTABLISHED>CLOSED task=9 snd rcv sock linger0", "server unknown unknown owner=9/close")]
#[case::never_accepted("ESTABLISHED>CLOSED task=9", "server unknown never_accepted owner=9/close")]
#[case::received("ESTABLISHED>CLOSED err=104 sock", "server reset_remote reset_received")]
fn ends_that_depend_on_a_reset_nobody_watches_for(#[case] closing: &str, #[case] expected: &str) {
    let mut engine = super::Engine::new(super::Config { resets: false, ..super::Config::default() });
    let mut rows = Vec::new();
    for event in script::parse(&format!("0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 5 {closing}")) {
        engine.feed(&event, &mut rows);
    }
    assert_eq!(script::connections(&rows), [format!("{expected} | SYN_RECV 0 ESTABLISHED 5")]);
}

/// No further event would decide it.
#[test]
fn what_waits_for_a_reset_at_the_end_is_put_out() {
    let mut engine = super::Engine::new(super::Config::default());
    let mut rows = Vec::new();
    for event in
        script::parse("0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 5 ESTABLISHED>CLOSED task=9 snd rcv sock linger0")
    {
        engine.feed(&event, &mut rows);
    }
    assert!(script::connections(&rows).is_empty());
    engine.finish(&mut rows);
    assert_eq!(script::connections(&rows), ["server unknown unknown owner=9/close | SYN_RECV 0 ESTABLISHED 5"]);
}

/// The next connection has the same number, but its reset is not that of the earlier one.
#[test]
fn a_socket_that_connects_again_does_not_wait_for_the_reset_of_its_first_connection() {
    let lives = play(
        "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 2 ESTABLISHED>CLOSED task=7 sock; 3 CLOSED>SYN_SENT task=7;
         4 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>CLOSED task=7 sock rst",
    );
    let expected = ["unknown", "reset_local"]
        .map(|closer| format!("client {closer} disconnected owner=7/connect | SYN_SENT 1 ESTABLISHED 1"));
    assert_eq!(lives, expected);
}

#[test]
fn every_state_is_a_row_and_mini_sockets_are_real_states() {
    let rows = play_rows(
        "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7; 6 FIN_WAIT1>FIN_WAIT2 dead;
         6 FIN_WAIT2>CLOSED dead mini=FIN_WAIT2; 9 fin; 60009 expired TIME_WAIT",
    );
    assert_eq!(
        rows,
        [
            "CLOSED>SYN_SENT -",
            "SYN_SENT>ESTABLISHED 1",
            "ESTABLISHED>FIN_WAIT1 4 active",
            "FIN_WAIT1>FIN_WAIT2 1 active",
            "FIN_WAIT2>TIME_WAIT 3 active orphan",
            "TIME_WAIT>CLOSED 60000 active expired orphan",
        ]
    );
}

#[test]
fn unseen_entry_into_time_wait_is_reckoned_from_the_timer() {
    // The first connection shows how long a TIME_WAIT is; the second one's timer was set 50 ms into its FIN_WAIT2.
    let rows = play_rows(
        "0 ESTABLISHED>FIN_WAIT1; 1 FIN_WAIT1>FIN_WAIT2; 1 FIN_WAIT2>CLOSED dead done mini=TIME_WAIT;
         2 other ESTABLISHED>FIN_WAIT1; 3 other FIN_WAIT1>FIN_WAIT2; 3 other FIN_WAIT2>CLOSED dead mini=FIN_WAIT2;
         60100 other expired TIME_WAIT due=-47",
    );
    let own: Vec<_> = rows.iter().rev().take(2).collect();
    assert_eq!(own, ["TIME_WAIT>CLOSED ≥60047 active expired orphan", "FIN_WAIT2>TIME_WAIT - active orphan"]);
}

/// A damaged trace can have any time.
#[test]
fn a_report_at_the_end_of_all_times_is_the_last_one() {
    let config = super::Config { stuck_after: Some(1_000_000_000), ..super::Config::default() };
    let mut engine = super::Engine::new(config);
    let mut rows = Vec::new();
    script::parse("0 ESTABLISHED>CLOSE_WAIT").iter().for_each(|event| engine.feed(event, &mut rows));
    rows.clear();
    engine.advance(u64::MAX, &mut rows);
    engine.advance(u64::MAX, &mut rows);
    let reports = rows.iter().filter(|row| matches!(row, Row::Transition(_))).count();
    assert_eq!(reports, 1, "{rows:?}");
}

/// Where nobody watches mini-sockets, FIN_WAIT2 may go on in one, unless the peer's FIN has come.
#[rstest]
#[case::no_fin("", "dead", "FIN_WAIT2>CLOSED ≥1")]
#[case::fin("", "dead done", "FIN_WAIT2>CLOSED 1")]
#[case::no_facts("address", "", "FIN_WAIT2>CLOSED ≥1")]
fn an_unwatched_fin_wait2_may_go_on(#[case] id: &str, #[case] facts: &str, #[case] expected: &str) {
    let begins = format!("0 {id} ESTABLISHED>FIN_WAIT1; 1 {id} FIN_WAIT1>FIN_WAIT2");
    let rows = play_rows(&format!("{begins}; 2 {id} FIN_WAIT2>CLOSED {facts}"));
    let last = rows.last().expect("a row");
    assert!(last.starts_with(&format!("{expected} active")), "{last}");
}

/// Where the kernel shows such FINs, one that it did not show is a loss.
#[rstest]
#[case::seen(true, "3 fin; 60003 expired TIME_WAIT", 0)]
#[case::given_more_time(true, "3 rearmed TIME_WAIT; 60003 expired TIME_WAIT", 0)]
#[case::unseen(true, "60003 expired TIME_WAIT", 1)]
#[case::not_watched(false, "60003 expired TIME_WAIT", 0)]
#[case::lost(true, "2 lost; 60003 expired TIME_WAIT", 0)]
fn a_fin_that_nobody_saw_is_a_loss(#[case] fins: bool, #[case] rest: &str, #[case] expected: u64) {
    let mut engine = super::Engine::new(super::Config { fins, ..super::Config::default() });
    let mut rows = Vec::new();
    let closing = "0 ESTABLISHED>FIN_WAIT1; 1 FIN_WAIT1>FIN_WAIT2; 1 FIN_WAIT2>CLOSED dead mini=FIN_WAIT2";
    for event in script::parse(&format!("{closing}; {rest}")) {
        engine.feed(&event, &mut rows);
    }
    assert_eq!(engine.stats().unreported, expected);
    let losses = script::losses(&rows);
    assert_eq!(losses.iter().filter(|loss| loss.contains("unreported")).count() as u64, expected, "{losses:?}");
}

#[test]
fn a_listener_is_shown_but_is_no_connection() {
    let events = "0 CLOSED>LISTEN task=3; 5 LISTEN>CLOSED task=3; 5 CLOSED>CLOSED task=3; 6 destroy";
    assert_eq!(play_rows(events), ["CLOSED>LISTEN -", "LISTEN>CLOSED 5"]);
    assert!(play(events).is_empty());
}

/// Two CPUs make a socket each for one request. The kernel drops one, which was no connection, and shows nothing of its end but
/// the change of state.
#[test]
fn of_two_sockets_for_one_request_one_is_a_connection() {
    let both = "0 LISTEN>SYN_RECV; 0 other LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 0 other SYN_RECV>CLOSED task=9;
         0 other destroy; 1 accepted task=7; 5 ESTABLISHED>CLOSED sock err=104";
    assert_eq!(play(both), ["server reset_remote reset_received owner=7/accept | SYN_RECV 0 ESTABLISHED 5"]);
    assert_eq!(play_rows(both)[3], "SYN_RECV>CLOSED 0");
    let is_drop = |row: &&Transition| (row.old, row.new) == (State::SynRecv, State::Closed);
    let rows = script::rows(both);
    let mut drops =
        rows.iter().filter_map(|row| if let Row::Transition(row) = row { Some(row) } else { None }).filter(is_drop);
    let drop = drops.next().expect("the change of state");
    assert_eq!((drop.identity.owner, drop.closed_by), (None, None), "the task on the CPU is unrelated");
}

#[rstest]
#[case::dropped("0 other LISTEN>SYN_RECV", "1 other SYN_RECV>CLOSED task=9; 1 other destroy")]
#[case::made("", "2 other LISTEN>SYN_RECV; 2 other SYN_RECV>CLOSED task=9; 2 other destroy")]
fn the_connection_can_be_over_before_the_other_socket_is(#[case] first: &str, #[case] last: &str) {
    let lives = play(&format!(
        "0 LISTEN>SYN_RECV; {first}; 0 SYN_RECV>ESTABLISHED; 0 accepted task=7;
         1 ESTABLISHED>CLOSED task=7 snd rcv sock linger0 rst; {last}",
    ));
    assert_eq!(lives, ["server reset_local reset_linger0 owner=7/accept | SYN_RECV 0 ESTABLISHED 1"]);
}

#[test]
fn the_other_socket_can_be_dropped_before_the_addresses_of_the_first_are_known() {
    let lives = play(
        "0 embryo; 0 other LISTEN>SYN_RECV; 0 other SYN_RECV>CLOSED task=9; 0 other destroy; 1 SYN_RECV>ESTABLISHED child;
         1 accepted task=7; 5 ESTABLISHED>CLOSED sock err=104",
    );
    assert_eq!(lives, ["server reset_remote reset_received owner=7/accept | SYN_RECV 1 ESTABLISHED 4"]);
}

#[rstest]
#[case::alone("0 other LISTEN>SYN_RECV; 0 other SYN_RECV>CLOSED task=9; 0 other destroy; 900 advance", 1)]
#[case::much_later(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 900 other LISTEN>SYN_RECV; 900 other SYN_RECV>CLOSED task=9;
     900 other destroy; 1800 advance",
    1
)]
#[case::of_the_other_end(
    "0 CLOSED>SYN_SENT task=7; 0 SYN_SENT>ESTABLISHED; 0 other LISTEN>SYN_RECV; 0 other SYN_RECV>CLOSED task=9; 0 other destroy; 900 advance",
    1
)]
#[case::with_a_reset_after_the_end(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 1 ESTABLISHED>CLOSED task=9 rst; 1 destroy;
     2 other LISTEN>SYN_RECV; 2 other SYN_RECV>CLOSED task=9 rst; 2 other destroy",
    2
)]
#[case::both_are_dropped(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>CLOSED; 0 destroy; 0 other LISTEN>SYN_RECV; 0 other SYN_RECV>CLOSED task=9; 0 other destroy; 900 advance",
    2
)]
fn sockets_that_are_dropped_for_other_reasons(#[case] script: &str, #[case] connections: usize) {
    let lives = play(script);
    assert_eq!(lives.len(), connections, "{lives:?}");
    assert!(lives.iter().all(|life| life.contains(" never_accepted ")), "{lives:?}");
    let dropped = lives.last().map(String::as_str);
    assert_eq!(
        dropped,
        Some("server never_established never_accepted | SYN_RECV 0"),
        "the task on the CPU is unrelated"
    );
}

#[test]
fn a_socket_that_connects_again_is_another_connection() {
    let lives = play(
        "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>CLOSED err=111 sock; 5 CLOSED>SYN_SENT task=7; 7 SYN_SENT>CLOSED err=110 sock",
    );
    assert_eq!(
        lives,
        [
            "client never_established refused owner=7/connect | SYN_SENT 1",
            "client never_established connect_timeout owner=7/connect | SYN_SENT 2",
        ]
    );
}

#[test]
fn an_address_that_is_used_again_is_another_connection() {
    let lives = play(
        "0 address CLOSED>SYN_SENT task=7; 1 address SYN_SENT>ESTABLISHED; 9 address CLOSED>SYN_SENT task=8;
         10 address SYN_SENT>ESTABLISHED; 12 address destroy",
    );
    assert_eq!(
        lives,
        [
            "client unknown unknown owner=7/connect incomplete | SYN_SENT 1",
            "client unknown unknown owner=8/connect incomplete | SYN_SENT 1",
        ]
    );
}

#[test]
fn the_socket_that_was_idle_longest_is_forgotten_first() {
    let mut engine = super::Engine::new(super::Config { sockets: 2, ..super::Config::default() });
    let mut rows = Vec::new();
    for event in script::parse(
        "0 CLOSED>SYN_SENT; 1 other CLOSED>SYN_SENT; 2 SYN_SENT>ESTABLISHED; 3 third CLOSED>SYN_SENT; 4 SYN_SENT>CLOSED err=104;
         6 other SYN_SENT>ESTABLISHED",
    ) {
        engine.feed(&event, &mut rows);
    }
    assert_eq!(engine.stats().evicted, 1);
    let shown = script::transitions(&rows);
    assert_eq!(
        shown.last().map(String::as_str),
        Some("SYN_SENT>ESTABLISHED ≥3"),
        "what is certain of the forgotten one"
    );
    for event in script::parse("8 other ESTABLISHED>CLOSED err=104") {
        engine.feed(&event, &mut rows);
    }
    let lives = script::connections(&rows);
    let other = lives.last().expect("the forgotten one");
    assert!(other.contains("incomplete"), "{other}");
}

/// If there are many, one loss a second reports all of them; the rest follows at the end.
#[test]
fn forgotten_sockets_are_reported_together() {
    let mut engine = super::Engine::new(super::Config { sockets: 1, ..super::Config::default() });
    let mut rows = Vec::new();
    for event in script::parse(
        "0 CLOSED>SYN_SENT; 1 other CLOSED>SYN_SENT; 900 CLOSED>SYN_SENT; 1001 SYN_SENT>ESTABLISHED; 1500 other CLOSED>SYN_SENT",
    ) {
        engine.feed(&event, &mut rows);
    }
    assert_eq!(script::losses(&rows), ["1 evicted Some(2)"]);
    assert_eq!(engine.next_deadline(), Some(1_002_500_000_000), "when the rest is reported");
    engine.finish(&mut rows);
    assert_eq!(script::losses(&rows), ["1 evicted Some(2)", "1500 evicted Some(1)"]);
    assert_eq!(engine.stats().evicted, 3);
}

/// It had no cookie before to link it to its mini-socket.
#[test]
fn a_socket_first_seen_when_it_closes_may_have_a_time_wait() {
    assert_eq!(play_rows("5 FIN_WAIT2>CLOSED done mini=none"), ["FIN_WAIT2>CLOSED ≥5 active unknown"]);
    let seen = play_rows("4 FIN_WAIT1>FIN_WAIT2 snd sock; 5 FIN_WAIT2>CLOSED done mini=none");
    assert_eq!(seen.last().map(String::as_str), Some("FIN_WAIT2>CLOSED 1 active refused"));
}

/// The counts of TCP are incomplete.
#[test]
fn bytes_that_may_bypass_tcp_are_unknown() {
    let totals = |between: &str| {
        let script = format!("0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; {between} 5 ESTABLISHED>CLOSED err=104");
        let rows = script::rows(&script);
        let connections = rows.iter().filter_map(|row| if let Row::Connection(row) = row { Some(row) } else { None });
        connections.map(|connection| connection.totals.is_some()).collect::<Vec<_>>()
    };
    assert_eq!(totals(""), [true]);
    assert_eq!(totals("2 bypass;"), [false]);
    assert_eq!(totals("2 other bypass;"), [true]);
}

#[test]
fn a_loss_is_a_row_where_it_happened() {
    let rows = script::rows("0 CLOSED>SYN_SENT; 1 lost; 2 SYN_SENT>ESTABLISHED; 3 lost_to; 4 SYN_SENT>CLOSED err=104");
    assert_eq!(script::losses(&rows), ["1 ring_full Some(1)"], "and none where it ends");
    let place = rows.iter().position(|row| matches!(row, Row::Loss(_)));
    assert_eq!(place, Some(1), "between the transitions");
    assert!(script::connections(&rows).iter().all(|life| life.contains("incomplete")));
}

#[test]
fn at_close_a_connection_is_put_out_before_its_time_wait() {
    let mut engine = super::Engine::new(super::Config { at_close: true, ..super::Config::default() });
    let mut rows = Vec::new();
    let events = "0 ESTABLISHED>FIN_WAIT1; 1 FIN_WAIT1>FIN_WAIT2; 1 FIN_WAIT2>CLOSED dead done mini=TIME_WAIT";
    for event in script::parse(events) {
        engine.feed(&event, &mut rows);
    }
    assert_eq!(script::connections(&rows).len(), 1);
    for event in script::parse("60001 expired TIME_WAIT") {
        engine.feed(&event, &mut rows);
    }
    assert_eq!(script::connections(&rows).len(), 1, "once only");
}

const UP_TO_FIN_WAIT1: &str = "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7;";

/// A connection whose closing was missing once stayed in FIN_WAIT1 for ever, unless its TIME_WAIT expired.
#[rstest]
#[case::expired("60005 expired TIME_WAIT", "tw=expired owner=7/connect incomplete | SYN_SENT 1 ESTABLISHED 4")]
#[case::a_new_syn("50005 killed TIME_WAIT connect", "tw=reused owner=7/connect incomplete | SYN_SENT 1 ESTABLISHED 4")]
#[case::segment("50005 killed TIME_WAIT segment", "tw=new_syn owner=7/connect incomplete | SYN_SENT 1 ESTABLISHED 4")]
#[case::reset("50005 killed TIME_WAIT reset", "tw=reset owner=7/connect incomplete | SYN_SENT 1 ESTABLISHED 4")]
#[case::admin("50005 killed TIME_WAIT admin", "tw=killed owner=7/connect incomplete | SYN_SENT 1 ESTABLISHED 4")]
#[case::netns("50005 killed TIME_WAIT netns", "tw=netns_gone owner=7/connect incomplete | SYN_SENT 1 ESTABLISHED 4")]
#[case::fin_before(
    "6 fin; 50006 killed TIME_WAIT connect",
    "tw=reused owner=7/connect incomplete | SYN_SENT 1 ESTABLISHED 4 TIME_WAIT ≥50000"
)]
#[case::both_before_it_is_certain(
    "6 fin; 206 killed TIME_WAIT netns",
    "tw=netns_gone owner=7/connect incomplete | SYN_SENT 1 ESTABLISHED 4 TIME_WAIT ≥200"
)]
#[case::fin_and_the_full_socket_gone(
    "6 fin; 6 destroy; 60006 expired TIME_WAIT",
    "tw=expired owner=7/connect incomplete | SYN_SENT 1 ESTABLISHED 4 TIME_WAIT ≥60000"
)]
#[case::perhaps_ended(
    "6 rearmed TIME_WAIT; 1006 killed TIME_WAIT unknown; 300000 advance",
    "tw=unknown owner=7/connect incomplete | SYN_SENT 1 ESTABLISHED 4"
)]
fn a_closing_that_is_missing_is_proved_by_what_comes_after_it(#[case] rest: &str, #[case] expected: &str) {
    let rows = script::rows(&format!("{UP_TO_FIN_WAIT1} {rest}; 400000 advance"));
    assert_eq!(script::connections(&rows), [format!("client active fin {expected}")]);
    assert_eq!(script::losses(&rows).len(), 1, "{:?}", script::losses(&rows));
}

#[rstest]
#[case::where_it_is_certain("6 fin; 1005 advance; 1006 advance", &["1006 unreported Some(1)"])]
#[case::not_before("6 fin; 1005 advance", &[])]
#[case::it_comes_late("6 fin; 1005 FIN_WAIT1>FIN_WAIT2; 1005 FIN_WAIT2>CLOSED dead mini=FIN_WAIT2; 9000 advance", &[])]
#[case::at_once("60005 expired TIME_WAIT", &["60005 unreported Some(1)"])]
#[case::a_loss_explains_it("6 lost; 7 fin; 9000 advance", &["6 ring_full Some(1)"])]
#[case::another_life("6 fin; 7 CLOSED>SYN_SENT; 9000 advance", &[])]
fn a_missing_closing_is_a_loss(#[case] rest: &str, #[case] expected: &[&str]) {
    assert_eq!(script::losses(&script::rows(&format!("{UP_TO_FIN_WAIT1} {rest}"))), expected);
}

#[test]
fn what_overtakes_the_closing_takes_effect_after_it_in_order() {
    let lives = play(&format!(
        "{UP_TO_FIN_WAIT1} 6 FIN_WAIT1>FIN_WAIT2 dead; 7 fin; 9 killed TIME_WAIT connect; 6 FIN_WAIT2>CLOSED dead mini=FIN_WAIT2;
         9000 advance"
    ));
    let expected =
        "client active fin tw=reused owner=7/connect | SYN_SENT 1 ESTABLISHED 4 FIN_WAIT1 1 FIN_WAIT2 1 TIME_WAIT 2";
    assert_eq!(lives, [expected]);
}

#[test]
fn at_close_a_connection_whose_closing_is_missing_is_put_out_once() {
    let mut engine = super::Engine::new(super::Config { at_close: true, ..super::Config::default() });
    let mut rows = Vec::new();
    for event in script::parse(&format!("{UP_TO_FIN_WAIT1} 6 fin; 2000 advance; 60006 expired TIME_WAIT")) {
        engine.feed(&event, &mut rows);
    }
    let lives = script::connections(&rows);
    assert!(lives.len() == 1 && lives[0].contains("incomplete"), "{lives:?}");
    assert_eq!(engine.stats().unreported, 1);
    assert_eq!(engine.stats().followed, 0);
}
