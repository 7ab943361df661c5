// Gives a client of @microsoft/signalr its groups, items and user back after its connection was lost: it shows the token of
// the lost connection when it negotiates anew. Needs `Hub::restore_groups` at the app server. See docs/book/src/app/stateful-reconnect.md.
//
//   const http = new RestoringHttpClient(new signalR.DefaultHttpClient(signalR.NullLogger.instance));
//   const connection = new signalR.HubConnectionBuilder()
//     .withUrl("/chat", { httpClient: http }).withStatefulReconnect().withAutomaticReconnect().build();
//   http.watch(connection);

export class RestoringHttpClient {
  constructor(inner) {
    this.inner = inner;
  }

  // A token counts once its connection was open: an attempt may negotiate and then fail to connect.
  watch(connection) {
    const lost = () => (this.lost = this.token);
    connection.onreconnecting(lost);
    connection.onclose((error) => error && lost());
  }

  async send(request) {
    if (!/\/negotiate(\?|$)/.test(request.url)) return this.inner.send(request);
    const restore = this.lost ? `${request.url.includes("?") ? "&" : "?"}restore=${encodeURIComponent(this.lost)}` : "";
    const response = await this.inner.send({ ...request, url: request.url + restore });
    const answer = response.statusCode === 200 ? JSON.parse(response.content) : {};
    this.token = answer.connectionToken ?? answer.connectionId ?? this.token;
    return response;
  }

  getCookieString(url) {
    return this.inner.getCookieString(url);
  }
}
