import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * Drives any number of official Java clients on behalf of the end-to-end tests.
 *
 * <pre>
 * in:  {"id":1,"op":"open",...}
 * out: {"id":1,"ok":true,"result":...}  or  {"id":1,"ok":false,"error":"text"}  or  {"event":"...",...}
 * </pre>
 *
 * Commands run concurrently: a reply carries the id of its command. The process ends when the pipe closes.
 */
public final class Agent {
  private static final Gson GSON = new GsonBuilder().serializeNulls().create();
  private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);
  private static final Map<String, Client> CLIENTS = new ConcurrentHashMap<>();

  private Agent() {}

  /** Writes a line from alternating names and values. */
  static void emit(Object... fields) {
    Map<String, Object> line = new LinkedHashMap<>();
    for (int i = 0; i < fields.length; i += 2) {
      line.put((String) fields[i], fields[i + 1]);
    }
    OUT.println(GSON.toJson(line));
  }

  private static Object run(String op, JsonObject options) {
    String name = options.get("client").getAsString();
    if (op.equals("open")) {
      CLIENTS.put(name, new Client(name, options));
    }
    return CLIENTS.get(name).run(op, options);
  }

  private static void answer(JsonObject command) {
    long id = command.get("id").getAsLong();
    try {
      emit("id", id, "ok", true, "result", run(command.get("op").getAsString(), command));
    } catch (Throwable error) {
      emit("id", id, "ok", false, "error", String.valueOf(error.getMessage()));
    }
  }

  public static void main(String[] arguments) throws Exception {
    ExecutorService threads = Executors.newCachedThreadPool();
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      JsonObject command = JsonParser.parseString(line).getAsJsonObject();
      threads.execute(() -> answer(command));
    }
    // Library threads must not keep the process alive.
    Runtime.getRuntime().halt(0);
  }
}
