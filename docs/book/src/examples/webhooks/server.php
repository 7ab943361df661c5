<?php
// Back end of the hub `chat` in PHP, behind a webhook; see docs/book/src/operators/webhooks.md. Run it with `php -S 127.0.0.1:7071 server.php`.
// WEBHOOK_SECRET is the secret of the hub.

$methods = [
    'Add' => fn($one, $other) => $one + $other,
    // Sends to all clients, at any proxy.
    'Say' => function ($text) {
        $content = json_encode(['target' => 'Said', 'arguments' => [$_SERVER['HTTP_X_ASRS_USER_ID'] ?? null, $text]]);
        $headers = ['Authorization: Bearer ' . getenv('TRUNKLINE_REST_TOKEN'), 'Content-Type: application/json'];
        $context = stream_context_create(['http' => ['method' => 'POST', 'header' => $headers, 'content' => $content]]);
        file_get_contents(getenv('TRUNKLINE_REST') . '/api/hubs/chat/:send', false, $context);
    },
];

// Returns whether the request was signed with the secret within the last five minutes.
function is_genuine(string $body, string $secret): bool
{
    $signatures = explode(',', $_SERVER['HTTP_X_TRUNKLINE_SIGNATURE'] ?? '');
    $seconds = substr(array_shift($signatures), 2);
    if (!ctype_digit($seconds) || abs(time() - (int) $seconds) > 300) {
        return false;
    }
    $names = ['X_ASRS_CONNECTION_ID', 'X_ASRS_HUB', 'X_ASRS_CATEGORY', 'X_ASRS_EVENT', 'X_TRUNKLINE_EVENT_NUMBER'];
    $names = [...$names, 'X_ASRS_USER_ID', 'X_ASRS_USER_CLAIMS', 'X_ASRS_CLIENT_QUERY'];
    $values = array_map(fn($name) => $_SERVER["HTTP_$name"] ?? '', $names);
    $own = 'sha256=' . hash_hmac('sha256', implode("\n", [$seconds, ...$values, $body]), $secret);
    return (bool) array_filter($signatures, fn($one) => hash_equals($own, $one));
}

$body = file_get_contents('php://input');
if (!is_genuine($body, getenv('WEBHOOK_SECRET'))) {
    http_response_code(401);
    exit;
}
$connection = $_SERVER['HTTP_X_ASRS_CONNECTION_ID'];
$event = $_SERVER['HTTP_X_ASRS_EVENT'];
if ($_SERVER['HTTP_X_ASRS_CATEGORY'] === 'connections') {
    error_log("$event $connection");
    http_response_code(204);
    exit;
}
if (!isset($methods[$event]) || $_SERVER['CONTENT_TYPE'] !== 'application/json') {
    http_response_code(404);
    exit;
}
$call = json_decode($body, true);
$result = $methods[$event](...$call['arguments']);
echo json_encode(['type' => 3, 'invocationId' => $call['invocationId'] ?? null, 'result' => $result]);
