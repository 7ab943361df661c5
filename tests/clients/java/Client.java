import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.microsoft.signalr.HttpHubConnectionBuilder;
import com.microsoft.signalr.HubConnection;
import com.microsoft.signalr.HubConnectionBuilder;
import com.microsoft.signalr.TransportEnum;
import io.reactivex.rxjava3.core.Single;
import io.reactivex.rxjava3.subjects.ReplaySubject;
import io.reactivex.rxjava3.subjects.Subject;
import java.lang.reflect.Type;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;

/** Client of the library, with its uploads. */
final class Client {
  /** Type of any JSON value. */
  private static final Type ANY = JsonElement.class;

  private final String name;
  private final HubConnection connection;
  private final Map<String, Subject<JsonElement>> uploads = new ConcurrentHashMap<>();

  Client(String name, JsonObject options) {
    this.name = name;
    this.connection = build(options);
    if (options.has("subscribe")) {
      options.getAsJsonArray("subscribe").forEach(target -> subscribe(target.getAsString()));
    }
    if (options.has("answers")) {
      options.getAsJsonObject("answers").entrySet().forEach(entry -> answer(entry.getKey(), entry.getValue()));
    }
    connection.onClosed(
        error ->
            Agent.emit("event", "closed", "client", name, "error", error == null ? null : error.getMessage()));
  }

  private static HubConnection build(JsonObject options) {
    HttpHubConnectionBuilder builder = HubConnectionBuilder.create(options.get("url").getAsString());
    boolean polls = options.has("transport") && options.get("transport").getAsString().equals("LongPolling");
    builder.withTransport(polls ? TransportEnum.LONG_POLLING : TransportEnum.WEBSOCKETS);
    if (options.has("accessToken")) {
      String token = options.get("accessToken").getAsString();
      builder.withAccessTokenProvider(Single.defer(() -> Single.just(token)));
    }
    return builder.build();
  }

  /** The library requires the number of arguments in advance: messages of the tests have one. */
  private void subscribe(String target) {
    connection.<JsonElement>on(
        target,
        argument ->
            Agent.emit("event", "message", "client", name, "target", target, "arguments", Collections.singletonList(argument)),
        ANY);
  }

  private void answer(String target, JsonElement order) {
    connection.<JsonElement, JsonElement>onWithResult(
        target,
        question -> {
          if (order.getAsJsonObject().has("throws")) {
            throw new IllegalStateException(order.getAsJsonObject().get("throws").getAsString());
          }
          return Single.just(order.getAsJsonObject().get("value"));
        },
        JsonElement.class);
  }

  Object run(String op, JsonObject options) {
    switch (op) {
      case "open":
      case "start":
        connection.start().blockingAwait();
        return Collections.singletonMap("connectionId", connection.getConnectionId());
      case "invoke":
        return connection.<JsonElement>invoke(ANY, target(options), arguments(options)).blockingGet();
      case "send":
        connection.send(target(options), arguments(options));
        return null;
      case "stream":
        return stream(target(options), arguments(options));
      case "upload":
        uploads.put(subject(options), ReplaySubject.create());
        return null;
      case "feed":
        options.getAsJsonArray("items").forEach(uploads.get(subject(options))::onNext);
        return null;
      case "complete":
        uploads.get(subject(options)).onComplete();
        return null;
      case "fail":
        uploads.get(subject(options)).onError(new IllegalStateException(options.get("error").getAsString()));
        return null;
      case "close":
        connection.stop().blockingAwait();
        return null;
      default:
        throw new IllegalArgumentException("this library's clients know no `" + op + "`");
    }
  }

  private static String target(JsonObject options) {
    return options.get("target").getAsString();
  }

  private static String subject(JsonObject options) {
    return options.get("subject").getAsString();
  }

  /** Arguments of a call, with placeholders replaced by uploads. */
  private Object[] arguments(JsonObject options) {
    List<Object> arguments = new ArrayList<>();
    for (JsonElement argument : options.getAsJsonArray("arguments")) {
      boolean isUpload = argument.isJsonObject() && argument.getAsJsonObject().has("$subject");
      arguments.add(isUpload ? uploads.get(argument.getAsJsonObject().get("$subject").getAsString()) : argument);
    }
    return arguments.toArray();
  }

  /** Replies at the end of the stream with its items and any error. */
  private Object stream(String target, Object[] arguments) {
    List<JsonElement> items = Collections.synchronizedList(new ArrayList<>());
    CountDownLatch over = new CountDownLatch(1);
    Throwable[] failure = new Throwable[1];
    connection
        .<JsonElement>stream(ANY, target, arguments)
        .subscribe(
            items::add,
            error -> {
              failure[0] = error;
              over.countDown();
            },
            over::countDown);
    try {
      over.await();
    } catch (InterruptedException interrupted) {
      throw new IllegalStateException(interrupted);
    }
    Map<String, Object> streamed = new HashMap<>();
    streamed.put("items", items);
    streamed.put("error", failure[0] == null ? null : failure[0].getMessage());
    return streamed;
  }
}
