<?php
// A chat in PHP: see docs/book/src/live-updates.md.
require __DIR__ . '/nodes.php';

set_exception_handler(function ($error) {
    $isRefused = $error instanceof Refused;
    $isRefused || error_log($error);
    http_response_code($isRefused ? $error->getCode() : 500);
    echo $isRefused ? $error->getMessage() : 'failed';
});

function query(string $text, array $values = []): array
{
    global $database;
    $statement = $database->prepare($text);
    $statement->execute($values);
    return $statement->fetchAll(PDO::FETCH_NUM);
}

$group = fn($room) => 'groups/' . rawurlencode($room);

// Names and arguments come from strangers, so each is checked.
$isName = fn($value) => is_string($value) && preg_match('/^(?!\s|\.\.?$)\P{Cc}{1,64}(?<!\s)$/Du', $value) === 1;
$isRoom = fn($value, $rooms) => in_array($value, $rooms, true);
$isText = fn($value) => is_string($value);
$isNumber = fn($value) => is_int($value) && $value >= 0;
$takes = ['Say' => [$isRoom, $isName, $isText], 'Since' => [$isRoom, $isNumber], 'Whisper' => [$isName, $isText]];

$methods = [
    'Say' => function ($user, $room, $id, $text) use ($group) {
        query('INSERT OR IGNORE INTO said SELECT :room, 1 + coalesce(max(number), 0), :id, :user, :text FROM said
            WHERE room = :room', ['room' => $room, 'id' => $id, 'user' => $user, 'text' => $text]);
        [$said] = query('SELECT number, user, text FROM said WHERE room = ? AND id = ?', [$room, $id]);
        send($group($room), 'Said', $room, ...$said);
        return $said[0];
    },
    'Since' => fn($user, $room, $last) => query(
        'SELECT number, user, text FROM said WHERE room = ? AND number > ? ORDER BY number LIMIT 100', [$room, $last]),
    'Whisper' => fn($user, $to, $text) => send('users/' . rawurlencode($to), 'Whispered', $user, $text),
];

$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
$body = file_get_contents('php://input');
if ($path === '/login') { // replace this by your own log-in
    $form = json_decode($body, true);
    $name = is_array($form) ? $form['name'] ?? null : null;
    $isName($name) || throw new Refused('a name has 1 to 64 characters, and no control characters', 400);
    exit(json_encode(['hub' => URL . '/' . HUB, 'token' => token(['sub' => $name])]));
} elseif ($path !== '/hook') {
    return false; // a file of the folder `public`
}
['user' => $user, 'category' => $category, 'name' => $name, 'query' => $query, 'data' => $data, 'body' => $call] = read($body);
if ($name === 'connect' && $category === 'connections') {
    $text = is_string($query['room'] ?? null) ? $query['room'] : '';
    $rooms = array_map('trim', explode(',', $text)); // check here who may enter these rooms
    if (strlen($text) > 750 || array_filter($rooms, fn($room) => !$isName($room))) {
        throw new Refused('which room?', 400);
    }
    exit(json_encode(['groups' => $rooms, 'data' => implode(',', $rooms)]));
}
$rooms = $data ? explode(',', $data) : []; // none at `disconnected` of a client whose node was lost
$database = new PDO('sqlite:' . __DIR__ . '/chat.db', options: [PDO::ATTR_PERSISTENT => true]);
$database->exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; CREATE TABLE IF NOT EXISTS said
    (room TEXT, number INTEGER, id TEXT, user TEXT, text TEXT, PRIMARY KEY (room, number), UNIQUE (room, id))');
if ($category === 'messages') {
    isset($methods[$name]) || throw new Refused('there is no such method', 404);
    [$answer, $given] = [['type' => 3, 'invocationId' => $call['invocationId'] ?? null], $call['arguments'] ?? []];
    $isRight = count($given) === count($takes[$name]);
    foreach ($takes[$name] as $index => $check) {
        $isRight = $isRight && $check($given[$index], $rooms);
    }
    $outcome = $isRight ? ['result' => $methods[$name]($user, ...$given)] : ['error' => "wrong arguments of $name"];
    exit(json_encode($answer + $outcome));
}
foreach ($rooms as $room) {
    $now = microtime(true);
    $names = array_unique(array_column(rest('GET', "{$group($room)}/connections")['value'], 'userId'));
    sort($names);
    send($group($room), 'Present', $room, $names, $now);
}
