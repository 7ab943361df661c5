<?php
// A chat in PHP: see docs/book/src/live-updates.md.
require __DIR__ . '/nodes.php';

function query(string $text, array $values = []): array
{
    global $database;
    $statement = $database->prepare($text);
    $statement->execute($values);
    return $statement->fetchAll(PDO::FETCH_NUM);
}

$methods = [
    'Say' => function ($user, $room, $id, $text) {
        query('INSERT OR IGNORE INTO said SELECT :room, 1 + coalesce(max(number), 0), :id, :user, :text FROM said
            WHERE room = :room', ['room' => $room, 'id' => $id, 'user' => $user, 'text' => $text]);
        [$said] = query('SELECT number, user, text FROM said WHERE room = ? AND id = ?', [$room, $id]);
        send('groups/' . rawurlencode($room), 'Said', ...$said);
        return $said[0];
    },
    'Since' => fn($user, $room, $last) => query(
        'SELECT number, user, text FROM said WHERE room = ? AND number > ? ORDER BY number LIMIT 100', [$room, $last]),
    'Whisper' => fn($user, $room, $to, $text) => send('users/' . rawurlencode($to), 'Whispered', $user, $text),
];

$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
$body = file_get_contents('php://input');
if ($path === '/login') { // replace this by your own log-in
    exit(json_encode(['hub' => URL . '/' . HUB, 'token' => token(['sub' => json_decode($body)->name])]));
} elseif ($path !== '/hook') {
    return false; // a file of the folder `public`
} elseif (!$event = read($body)) {
    http_response_code(401);
    exit('the signature is wrong');
}
$database = new PDO('sqlite:' . __DIR__ . '/chat.db', options: [PDO::ATTR_PERSISTENT => true]);
$database->exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; CREATE TABLE IF NOT EXISTS said
    (room TEXT, number INTEGER, id TEXT, user TEXT, text TEXT, PRIMARY KEY (room, number), UNIQUE (room, id))');
['user' => $user, 'name' => $name, 'query' => $query, 'data' => $room, 'call' => $call] = $event;
if ($call && !isset($methods[$name])) {
    http_response_code(404);
    exit;
}
if ($call) {
    $result = $methods[$name]($user, $room, ...$call['arguments']);
    exit(json_encode(['type' => 3, 'invocationId' => $call['invocationId'] ?? null, 'result' => $result]));
}
if ($name === 'connect') { // check here who may enter the room
    $room = trim($query['room'] ?? '');
    http_response_code($room === '' ? 403 : 200);
    exit($room === '' ? 'which room?' : json_encode(['groups' => [$room], 'data' => $room]));
}
if (!$room) { // `disconnected` of a client whose node was lost
    exit;
}
[$group, $now] = ['groups/' . rawurlencode($room), microtime(true)];
$names = array_unique(array_column(rest('GET', "$group/connections")['value'], 'userId'));
sort($names);
send($group, 'Present', $names, $now);
